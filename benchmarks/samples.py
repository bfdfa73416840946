"""The samples of the reference networks: images from files, rendered text, sentences, sound and bytes.

Each maker takes the path of its network and returns `Samples`; all are seeded, and none overlaps between its two splits. Some kinds have
samples enough for two more draws, which calibrate another time: their makers are called `more_...`, and return both draws in one list.
"""

from __future__ import annotations

import io
import json
import os
import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image, ImageDraw, ImageFont
from prepare_models import GENSIM, MAGIKA, tokenized, wheel_folder

from zeropoint.errors import DataError

Pixels = npt.NDArray[np.uint8]  # (H, W, 3), channels in the order that the network expects
Feed = dict[str, npt.NDArray[np.generic]]
Boxes = npt.NDArray[np.float32]  # (boxes, 6): the photo's place in its split, the class, the shares left, top, right, bottom


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """What a maker returns: feeds as they are cached (images still as pixels) and the evaluation samples' labels."""

    calibration: Sequence[Feed]
    evaluation: Sequence[Feed]
    labels: Sequence[int] | Sequence[str] | Boxes | None = None


def _shared(*parts: str) -> Path:
    """Return a file or folder of the shared folder."""
    default = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("ZEROPOINT_SHARED", default)).joinpath(*parts)
    if not path.exists():
        raise DataError(f"{path}: not found, expected {'/'.join(parts)}; set ZEROPOINT_SHARED to the folder that holds models/ and data/")
    return path


def shared_model(name: str) -> Path:
    """Return the path of a network in the shared folder."""
    return _shared("models", f"{name}.onnx")


def _input_name(model: Path) -> str:
    return str(ort.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()[0].name)


# --- images from files -----------------------------------------------------------------------------------------------------


def _photo_files() -> list[Path]:
    """Return the 500 photos in order of class."""
    folder = _shared("data", "imagenet500")
    files = sorted(folder.glob("*.jpg"))
    if len(files) != 500:
        raise DataError(f"{folder}: found {len(files)} photos, expected 500; the fixed split needs them all")
    return files


def photos(model: Path) -> Samples:
    """Of the 500 photos in order of class, 0, 3, ..., 381 calibrate and the other 372 evaluate; the file's name is the class."""
    files, name = _photo_files(), _input_name(model)
    images: list[Feed] = [{name: _centre(file)} for file in files]
    chosen = range(0, 382, 3)
    rest = [i for i in range(500) if i not in chosen]
    return Samples([images[i] for i in chosen], [images[i] for i in rest], [int(files[i].stem) for i in rest])


def _centre(file: Path) -> Pixels:
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    ratio = 256 / min(image.size)
    image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def cifar(model: Path) -> Samples:
    """The first 128 training images calibrate, the first 1000 test images evaluate."""
    train, _ = _cifar_split("train", range(128), name=_input_name(model))
    test, labels = _cifar_split("test", range(1000), name=_input_name(model))
    return Samples(train, test, labels)


def more_cifar(model: Path) -> list[Feed]:
    """The next 256 training images."""
    return _cifar_split("train", range(128, 384), name=_input_name(model))[0]


def _cifar_split(split: str, chosen: range, *, name: str) -> tuple[list[Feed], list[int]]:
    with np.load(_shared("data", "cifar10", f"{split}.npz")) as archive:
        jpeg, offsets, labels = (archive[key] for key in ("jpeg", "offsets", "labels"))
    files = (io.BytesIO(jpeg[offsets[i] : offsets[i + 1]].tobytes()) for i in chosen)
    feeds: list[Feed] = [{name: np.asarray(Image.open(file).convert("RGB"))} for file in files]
    return feeds, labels[chosen].tolist()


def coco(model: Path) -> Samples:
    """All 128 photos with boxes evaluate, and 128 of the 500 photos calibrate, which are too few for both; 352 x 352, BGR."""
    files = sorted(_shared("data", "coco128").glob("*.jpg"))
    return Samples(_squeezed(model, _photo_files()[0:384:3]), _squeezed(model, files), _boxes(files))


def more_coco(model: Path) -> list[Feed]:
    """Twice 128 other ones of the 500 photos."""
    return _squeezed(model, [*_photo_files()[1:384:3], *_photo_files()[2:384:3]])


def _squeezed(model: Path, files: Sequence[Path]) -> list[Feed]:
    name = _input_name(model)
    images = (Image.open(file).convert("RGB").resize((352, 352), Image.Resampling.BILINEAR) for file in files)
    return [{name: np.asarray(image)[:, :, ::-1]} for image in images]


def _boxes(files: Sequence[Path]) -> Boxes:
    """Return the boxes beside the photos; a photo of nothing has no file."""
    sides = [(photo, file.with_suffix(".txt")) for photo, file in enumerate(files)]
    rows = [(photo, row) for photo, side in sides if side.exists() for row in side.read_text(encoding="ascii").splitlines()]
    return np.array([(photo, *_box(row)) for photo, row in rows], np.float32)


def _box(row: str) -> tuple[float, ...]:
    """Return the class, left, top, right and bottom of a row: the class, and either the middle and the size or a polygon's corners."""
    kind, *numbers = map(float, row.split())
    if len(numbers) > 4:
        return kind, min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
    x, y, w, h = numbers
    return kind, x - w / 2, y - h / 2, x + w / 2, y + h / 2


# --- rendered text ---------------------------------------------------------------------------------------------------------

_WORDS = (
    "account amount balance bridge Budget cargo Center coffee copper Delivery engine Export flight Garden harbour Hotel "
    "invoice item January juice kettle Kitchen ladder market Michael monthly North number October office orange Order paper "
    "Price printer Quality receipt Record River sample School silver Station Street supply table ticket Total Tuesday unit "
    "valley velvet Volume water window yellow zebra zone"
)


def _phrase(rng: np.random.Generator, words: int) -> str:
    numbers = (
        f"{rng.integers(1000)}.{rng.integers(10, 100)}",
        f"{rng.integers(1, 29):02d}/{rng.integers(1, 13):02d}",
        str(rng.integers(10**6)),
    )
    return " ".join(str(rng.choice(numbers)) if rng.random() < 0.35 else str(rng.choice(_WORDS.split())) for _ in range(words))


def _draw_lines(rng: np.random.Generator, size: tuple[int, int], lines: Sequence[tuple[str, tuple[float, float], float]]) -> Pixels:
    """Draw lines, each a text, its (left, middle) and its font size, dark on light or light on dark, under a little noise."""
    light, dark = (tuple(int(v) for v in rng.integers(low, low + 80, 3)) for low in (175, 0))
    paper, ink = (light, dark) if rng.random() < 0.8 else (dark, light)
    image = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(image)
    for text, place, font_size in lines:
        draw.text(place, text, fill=ink, font=ImageFont.load_default(font_size), anchor="lm")
    noisy = np.asarray(image, np.float32) + rng.normal(0.0, rng.uniform(1.0, 8.0), (size[1], size[0], 3))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _line(rng: np.random.Generator, words: int) -> tuple[str, Pixels]:
    text, font_size = _phrase(rng, words), rng.uniform(26.0, 36.0)
    width = round(ImageFont.load_default(font_size).getlength(text)) + 12
    return text, _draw_lines(rng, (width, 48), [(text, (6.0, 24.0 + rng.uniform(-3.0, 3.0)), font_size)])


def text_lines(model: Path) -> Samples:
    """Lines of one to four words or numbers, 48 high and as wide as the text: 64 calibrate, the next 200 evaluate."""
    lines, name = _lines(264), _input_name(model)
    feeds: list[Feed] = [{name: pixels} for _, pixels in lines]
    return Samples(feeds[:64], feeds[64:], [text for text, _ in lines[64:]])


def more_text_lines(model: Path) -> list[Feed]:
    """The next 128 lines."""
    name = _input_name(model)
    return [{name: pixels} for _, pixels in _lines(392)[264:]]


def _lines(count: int) -> list[tuple[str, Pixels]]:
    rng = np.random.default_rng(48)
    return [_line(rng, int(rng.integers(1, 5))) for _ in range(count)]


def turned_lines(model: Path) -> Samples:
    """Lines of 48 x 192, every other one upside down: class 1."""
    rng = np.random.default_rng(180)
    images = [np.asarray(Image.fromarray(_line(rng, 2)[1]).resize((192, 48), Image.Resampling.BILINEAR)) for _ in range(128)]
    name = _input_name(model)
    feeds: list[Feed] = [{name: image[::-1, ::-1] if i % 2 else image} for i, image in enumerate(images)]
    return Samples(feeds[:64], feeds[64:], [i % 2 for i in range(64, 128)])


def pages(model: Path) -> Samples:
    """Pages of 640 x 640 with lines of many sizes."""
    rng, name = np.random.default_rng(640), _input_name(model)
    feeds: list[Feed] = [{name: _page(rng)} for _ in range(128)]
    return Samples(feeds[:64], feeds[64:])


def _page(rng: np.random.Generator) -> Pixels:
    lines, middle = [], 30.0
    while middle < 610.0:
        font_size = rng.uniform(14.0, 40.0)
        lines.append((_phrase(rng, int(rng.integers(1, 5))), (rng.uniform(10.0, 250.0), middle), font_size))
        middle += font_size * rng.uniform(1.5, 4.0)
    return _draw_lines(rng, (640, 640), lines)


# --- sentences, sound, bytes -----------------------------------------------------------------------------------------------


def sentences(_: Path) -> Samples:
    """News calibrates, film reviews evaluate, as sentences do in use: from another place."""
    reviews = (_texts() / "pang_lee_polarity.cor").read_text(encoding="cp1252").splitlines()
    return Samples(tokenized(_news()[:128]), tokenized([review.split(" ", 1)[1] for review in reviews[:200]]))


def more_sentences(_: Path) -> list[Feed]:
    """The next 256 sentences of the news."""
    return tokenized(_news()[128:384])


def _texts() -> Path:
    return wheel_folder(GENSIM) / "gensim/test/test_data"


def _news() -> list[str]:
    return re.split(r"(?<=[.!?])\s+", (_texts() / "lee_background.cor").read_text(encoding="utf-8"))


def voices(model: Path) -> Samples:
    """Two speakers' synthetic speech: 128 and 256 frames."""
    calibration, evaluation = (_frames(model, _voice(np.random.default_rng(seed), seconds=seed * 5)) for seed in (1, 2))
    return Samples(calibration[:128], evaluation[:256])


def _frames(model: Path, sound: npt.NDArray[np.float32]) -> list[Feed]:
    """Cut 16 kHz sound into the network's frames, 64 samples of context before 512 new ones, each with the state it meets there."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    padded, state = np.pad(sound, (64, 0)), np.zeros((2, 1, 128), np.float32)
    feeds: list[Feed] = []
    for start in range(0, len(sound) - 511, 512):
        feeds.append({"input": padded[None, start : start + 576], "state": state, "sr": np.array(16000, np.int64)})
        _, state = session.run(None, feeds[-1])
    return feeds


_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))  # formants in Hz: a i u e o


def _voice(rng: np.random.Generator, *, seconds: int) -> npt.NDArray[np.float32]:
    """Return synthetic speech at 16 kHz: syllables of a hiss and a vowel (harmonics under formants), with pauses and a little noise."""
    pitch = rng.uniform(100.0, 200.0)
    parts: list[npt.NDArray[np.float64]] = []
    while sum(part.size for part in parts) < 16000 * seconds:
        for _ in range(rng.integers(4, 12)):
            hiss = np.diff(rng.normal(0.0, 0.02, rng.integers(500, 1500)))
            parts += [hiss, _vowel(pitch * rng.uniform(0.85, 1.2), _VOWELS[rng.integers(5)], int(rng.integers(1600, 4000)))]
        parts.append(np.zeros(rng.integers(3000, 12000)))
    sound = np.concatenate(parts)[: 16000 * seconds]
    return np.asarray(sound + rng.normal(0.0, 0.001, len(sound)), np.float32)


def _vowel(pitch: float, formants: Sequence[int], length: int) -> npt.NDArray[np.float64]:
    time = np.arange(length) / 16000
    phase = 2 * np.pi * np.cumsum(pitch * (1.05 - 0.1 * time / time[-1] + 0.01 * np.sin(35 * time))) / 16000
    sound = np.zeros(length)
    for k in range(1, int(4000 / pitch)):
        gain = sum(1.0 / (1.0 + ((k * pitch - formant) / 80.0) ** 2) for formant in formants)
        sound += (gain + 0.02) / np.sqrt(k) * np.sin(k * phase)
    return np.asarray(0.1 * sound * np.sin(np.pi * np.arange(length) / length) ** 0.5)


_TYPES = {  # a file's suffix and the network's word for it; not .txt, which may be anything
    ".py": "python", ".pyc": "pythonbytecode", ".so": "elf", ".h": "c", ".c": "c", ".xml": "xml",
    ".pem": "pem", ".json": "json", ".zip": "zip", ".whl": "zip", ".tar": "tar", ".gif": "gif", ".png": "png",
    ".jpg": "jpeg", ".bmp": "bmp", ".webp": "webp", ".tiff": "tiff", ".wav": "wav", ".html": "html", ".css": "css",
    ".bat": "batch", ".ps1": "powershell", ".sh": "shell", ".rst": "rst", ".xz": "xz",
}  # fmt: skip


def files(model: Path) -> Samples:
    """Files of Python's own library and headers, one of each type in turn; the suffix is the label."""
    config = json.loads((wheel_folder(MAGIKA) / "magika/models/standard_v3_3/config.min.json").read_text(encoding="utf-8"))
    words, name = config["target_labels_space"], _input_name(model)
    tokens: dict[bytes, tuple[npt.NDArray[np.int32], int]] = {}  # by content: some files are there twice
    for file in _by_type(np.random.default_rng(256)):
        row = _tokens(file.read_bytes(), config)
        tokens.setdefault(row.tobytes(), (row, words.index(_TYPES[file.suffix])))
        if len(tokens) == 328:
            break
    else:
        raise DataError(f"Python's library: found {len(tokens)} files of known types, expected 328; use a Python with all its sources")
    feeds: list[Feed] = [{name: row} for row, _ in tokens.values()]
    return Samples(feeds[200:], feeds[:200], [label for _, label in tokens.values()][:200])


def _by_type(rng: np.random.Generator) -> list[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    found = chain(library.rglob("*"), Path(sysconfig.get_path("include")).rglob("*"))
    files = sorted(f for f in found if f.suffix in _TYPES and f.is_file() and "site-packages" not in f.parts and f.stat().st_size >= 256)
    piles = [[f for f in files if f.suffix == suffix] for suffix in _TYPES]
    turns = zip_longest(*([pile[i] for i in rng.permutation(len(pile))] for pile in piles))
    return [file for turn in turns for file in turn if file is not None]


def _tokens(content: bytes, config: dict[str, int]) -> npt.NDArray[np.int32]:
    """Return the first and last bytes, without white space around, as tokens: int32 (1, beg_size + end_size)."""
    block, padding = config["block_size"], config["padding_token"]
    head, tail = content[:block].lstrip()[: config["beg_size"]], content[-block:].rstrip()[-config["end_size"] :]
    row = np.full(config["beg_size"] + config["end_size"], padding, np.int32)
    row[: len(head)] = list(head)
    row[len(row) - len(tail) :] = list(tail)
    return row[None]
