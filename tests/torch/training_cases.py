"""A tiny network to fine-tune, data that draws from every random state, and what runs in processes of its own."""

from __future__ import annotations

import contextlib
import copy
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

pytest.importorskip("torch")

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch.utils.data import DataLoader, Dataset

from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.recipe import Recipe
from zeropoint.targets.openvino import OPENVINO
from zeropoint.torch.finetuning import finetune
from zeropoint.torch.preparing import prepare
from zeropoint.torch.training_options import Distillation

CLASSES, SAMPLES, SIDE = 4, 48, 6
BY_VALUES = Distillation(outputs=1e4, features=1e4, measure="values")  # over mean squares that all processes have to agree on


def network(*, seed: int = 0, ends: str = "") -> bytes:
    """A Conv, a depthwise Conv whose channels differ a hundredfold, a mean and a Gemm; `ends` is an operator behind them."""
    draw = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = draw.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
        if name == "depth":
            values *= np.logspace(-2, 0, shape[0]).reshape(-1, 1, 1, 1)
        return numpy_helper.from_array(values.astype(np.float32), name)

    weights = [weight("first", 8, 3, 3, 3), weight("depth", 8, 1, 3, 3), weight("last", CLASSES, 8), weight("bias", CLASSES)]
    output = "logits" if ends else "output"
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "depth"], ["c"], name="depth", pads=[1, 1, 1, 1], group=8),
        helper.make_node("Add", ["b", "c"], ["d"], name="add"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="mean"),
        helper.make_node("Flatten", ["e"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "last", "bias"], [output], name="last", transB=1),
        *([helper.make_node(ends, ["logits"], ["output"], name="end")] if ends else []),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    made = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["n", CLASSES])
    graph = helper.make_graph(nodes, "tiny", [image], [made], weights)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())


def images(count: int = SAMPLES, *, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


FOUR_BITS = replace(
    OPENVINO, activation=Spec(FORMATS["uint4"], symmetric=False), nonnegative_activation=Spec(FORMATS["uint4"], symmetric=True)
)


@cache
def _prepared(seed: int, ends: str, bits: int, learning: Any) -> Any:
    recipe = Recipe(weight_format="int8" if bits == 8 else "int4", effort="fast")
    target = OPENVINO if bits == 8 else FOUR_BITS
    return prepare(network(seed=seed, ends=ends), images(16), target=target, recipe=recipe, learning=learning)


def prepared(*, seed: int = 0, ends: str = "", bits: int = 8, learning: str = "scale") -> Any:
    """The network, quantized, as it is before training."""
    return copy.deepcopy(_prepared(seed, ends, bits, learning))


@dataclass
class Noisy(Dataset):
    """Images with noise from PyTorch's, NumPy's and Python's random states; something is done at the reading of one sample."""

    at: int = -1
    do: Any = None
    read: int = 0

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.read += 1
        if self.read == self.at:
            self.do()
        noise = torch.rand(()) + float(np.random.random()) + random.random()
        return torch.from_numpy(images()[index]) * (1 + 0.1 * noise), index % CLASSES


def noisy(at: int = -1, do: Any = None) -> DataLoader:
    """Six batches of eight, shuffled."""
    return DataLoader(Noisy(at, do), batch_size=8, shuffle=True)


class Joined:
    """All samples in order, in batches of `size`, of which each of `ranks` processes takes its part."""

    def __init__(self, size: int, rank: int = 0, ranks: int = 1) -> None:
        self.size, self.rank, self.ranks = size, rank, ranks

    def __len__(self) -> int:
        return SAMPLES // self.size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        x, y, part = torch.from_numpy(images()), torch.arange(SAMPLES) % CLASSES, self.size // self.ranks
        for start in range(self.rank * part, SAMPLES, self.size):
            yield x[start : start + part], y[start : start + part]


def learned(module: Any) -> dict[str, torch.Tensor]:
    """All parameters, copied."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.named_parameters()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Stop(Exception):
    pass


def stop() -> None:
    raise Stop


def drawing(outputs: Any, target: Any) -> Any:
    """A loss that draws from all random states, as dropout would from one."""
    noise = float(torch.rand(())) + float(np.random.random()) + random.random()
    return torch.nn.functional.cross_entropy(outputs * (1 + noise), target)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_and_die(checkpoint: str) -> None:
    """Train, and be killed at the reading of sample 70: in the third batch of the second epoch, behind eight steps in all."""
    torch.set_num_threads(1)
    finetune(prepared(), noisy(SAMPLES + 22, kill), epochs=3, checkpoint=checkpoint, checkpoint_steps=2)


def resumes(checkpoint: str, device: str) -> bool:
    """Say whether this process's training, which stops and goes on, ends as one that never stopped."""
    one, other = prepared().to(device), prepared().to(device)
    finetune(one, noisy(), loss=drawing, epochs=2)
    with contextlib.suppress(Stop):
        finetune(prepared().to(device), noisy(60, stop), loss=drawing, epochs=2, checkpoint=checkpoint, checkpoint_steps=1)
    done = finetune(other, noisy(), loss=drawing, epochs=2, checkpoint=checkpoint, checkpoint_steps=1)
    return done.resumed_at == 7 and same(learned(one), learned(other))


def train_in_parallel(rank: int, folder: str, backend: str) -> None:
    """Be one of two processes, which train a module, it again in a DistributedDataParallel, and one that stops; leave what came of it."""
    torch.set_num_threads(1)
    device = "cpu" if backend == "gloo" else f"cuda:{rank}"
    if backend == "nccl":
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found: list[Any] = []
    for name in ("plain", "wrapped"):
        seen: list[int] = []
        module = prepared().to(device)
        if rank == 1:  # the first process's weights are taken by all
            with torch.no_grad():
                module.network.weights["bias"].add_(1)
        done = finetune(
            torch.nn.parallel.DistributedDataParallel(module) if name == "wrapped" else module,
            Joined(16, rank, 2),
            loss=torch.nn.functional.cross_entropy,
            distillation=BY_VALUES,
            epochs=2,
            checkpoint=f"{folder}/{name}.checkpoint",
            checkpoint_steps=2,
            progress=lambda _, step, __, seen=seen: seen.append(step),  # type: ignore[misc]
        )
        found.append({"weights": learned(module), "seen": seen, "losses": [epoch.loss for epoch in done.epochs]})
    found.append(resumes(f"{folder}/resumed.checkpoint", device))
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
