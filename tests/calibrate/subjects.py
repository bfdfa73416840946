"""Small networks with data, ready to be calibrated, and what a calibration of them saw as bytes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx
from tests.graph.networks import Array, network

from zeropoint.calibrate import Resources, Saved, Source, Subject, calibrate
from zeropoint.calibrate.saved import Part, to_bytes
from zeropoint.data import batches, open_data
from zeropoint.demo import load_digits
from zeropoint.graph.facts import capture_facts
from zeropoint.graph.load import Source as Given
from zeropoint.graph.load import input_infos, load
from zeropoint.graph.prepare import prepare
from zeropoint.graph.taps import Taps
from zeropoint.progress import silent
from zeropoint.statistics.network import Statistics

# Every output element depends on one input element alone, so that a batch of any size computes the same bits.
ELEMENTWISE = network("a = Mul(x, k) r = Relu(a) s = Add(r, x) y = Sub(s, k)", inputs="float[N,16] x", weights={"k": (16,)})
ROWS = np.random.default_rng(0).normal(0.0, 2.0, (24, 16)).astype(np.float32)
# ONNX Runtime makes one kernel of Conv, Add and Relu where nothing between is an output, and that adds in another order.
FUSED = network(
    "d = Conv(x, v) a = Conv <pads = [1, 1, 1, 1]> (x, w, b) s = Add(a, d) r = Relu(s) y = Conv(r, v)",
    inputs="float[N,16,8,8] x",
    weights={"w": (16, 16, 3, 3), "b": (16,)},
)
IMAGES = np.random.default_rng(1).normal(0.0, 1.0, (10, 16, 8, 8)).astype(np.float32)


def source(**changed: Any) -> Source:
    fields: dict[str, Any] = {
        "model_sha256": "of the model",
        "data": "arrays",
        "data_sha256": "of the names",
        "blocks": 4,
        "batch_size": 2,
        "provider": "CPUExecutionProvider",
        "zeropoint": "1.2.3",
        "onnxruntime": "4.5.6",
    }
    return Source(**{**fields, **changed})


def subject(model: Given, data: object, *, batch_size: int = 1, **changed: Any) -> Subject:
    """Return a network and its data, `batch_size` samples at a time."""
    loaded = load(model)
    prepare(loaded)
    samples = open_data(data, input_infos(loaded))
    divided = batches(samples, batch_size)
    told = {"blocks": len(divided), "batch_size": divided.size, "data_sha256": hashlib.sha256(repr(samples.ids).encode()).hexdigest()}
    return Subject(loaded, capture_facts(loaded, divided[0][0]), divided, source(**{**told, **changed}))


def digits(count: int = 24, *, batch_size: int = 1, data: object = None, **changed: Any) -> Subject:
    found = load_digits()
    return subject(found.model, found.calibration[:count] if data is None else data, batch_size=batch_size, **changed)


def all_taps(of: Subject) -> Taps:
    """Return every tensor, and the means of the channels of some."""
    computed = [str(value.name) for node in of.model.graph for value in node.outputs]
    tensors = [*(str(value.name) for value in of.model.graph.inputs), *computed]
    return Taps(tuple(tensors), tuple((name, 1) for name in tensors[::2] if len(of.facts[name].shape) > 1))


def seen_bytes(statistics: Statistics) -> bytes:
    """Return all that was seen as the bytes of a file."""
    return to_bytes(Saved(source(), {}, (Part(Taps(()), frozenset(), statistics),)))


def calibrated(of: Subject, taps: Taps | None = None, **resources: Any) -> bytes:
    return seen_bytes(calibrate(of, all_taps(of) if taps is None else taps, Resources(**resources), progress=silent)[0])


def one_by_one(model: onnx.ModelProto, data: Array) -> list[dict[str, Array]]:
    """Return a feed for each sample."""
    return [{model.graph.input[0].name: data[k : k + 1]} for k in range(len(data))]
