"""Preprocessing by name, for the families of networks that are met most, from TOML files, and changed key by key."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import TypeVar

from zeropoint.data.preprocess import Preprocess
from zeropoint.data.resize import RESIZES, Exact, FixedHeight, Letterbox, Multiple, Resize, ShortSide
from zeropoint.errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_T = TypeVar("_T", bound=Preprocess | Resize)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images, in 0..1, RGB

PRESETS: dict[str, Preprocess] = {
    # torchvision and timm classifiers
    "imagenet": Preprocess(ShortSide(256), crop=(224, 224), scale=1 / 255, mean=_MEAN, std=_STD),
    # Caffe and Keras ResNet and VGG
    "caffe": Preprocess(ShortSide(256), crop=(224, 224), mean=(103.939, 116.779, 123.68), order="bgr"),
    "efficientnet-lite": Preprocess(ShortSide(256), crop=(224, 224), resample="bicubic", mean=(127.0,), std=(128.0,)),
    "inception": Preprocess(ShortSide(342), crop=(299, 299), mean=(127.5,), std=(127.5,)),
    # Keras MobileNet, SSD, ViT: -1..1 at the input's size
    "tf": Preprocess(Exact(), mean=(127.5,), std=(127.5,)),
    "clip": Preprocess(
        ShortSide(224),
        crop=(224, 224),
        resample="bicubic",
        scale=1 / 255,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    ),
    "yolo": Preprocess(Letterbox(), scale=1 / 255),
    "paddleocr-rec": Preprocess(FixedHeight(48), scale=1 / 255, mean=(0.5,), std=(0.5,), order="bgr"),
    # Its ImageNet values are meant for RGB, but PaddleOCR applies them to BGR, and its networks are trained so.
    "paddleocr-det": Preprocess(Multiple(), scale=1 / 255, mean=_MEAN, std=_STD, order="bgr"),
    "unit": Preprocess(Exact(), scale=1 / 255),
    "unit-gray": Preprocess(Exact(), scale=1 / 255, order="gray"),
    "raw": Preprocess(Exact()),
    "raw-gray": Preprocess(Exact(), order="gray"),
}


def load_preprocess(given: str | Path | Sequence[str | Path]) -> Preprocess:
    """Return the preset of that name or what the TOML file says, with the changes that "key=value" texts make to it.

    The file's keys are the fields of `Preprocess`; `resize` is a table with its `kind`. A key `preset` starts from that preset,
    which the other keys then change. In a sequence the name or file stands first, or nowhere, which starts from `Preprocess()`; the
    rest are changes in TOML's syntax. Those of `resize` keep its other keys, unless they change its `kind`.

    Raises:
        RecipeError: there is no such preset or file, or a key or value is wrong.

    Example:
        >>> load_preprocess("imagenet").describe()
        'short side 256 (bilinear), centre crop 224x224, (x * 0.00392157 - [0.485 0.456 0.406]) / [0.229 0.224 0.225], rgb'
        >>> load_preprocess(["imagenet", "crop=[288, 288]", "resize.size=320", "mean=[0.5, 0.5, 0.5]"]).describe()
        'short side 320 (bilinear), centre crop 288x288, (x * 0.00392157 - [0.5 0.5 0.5]) / [0.229 0.224 0.225], rgb'
    """
    items = [given] if isinstance(given, str | Path) else list(given)
    if not items:
        raise RecipeError(f"preprocess: found an empty list, expected {', '.join(PRESETS)}, a .toml file, or key=value")
    pairs = items if _is_pair(items[0]) else items[1:]
    base = Preprocess() if pairs is items else _named(items[0])
    return _changed(base, pairs, where=" ".join(map(str, items))) if pairs else base


def _is_pair(item: str | Path) -> bool:
    return isinstance(item, str) and "=" in item and not item.lower().endswith(".toml")


def _changed(base: Preprocess, pairs: Sequence[str | Path], *, where: str) -> Preprocess:
    changes: dict[str, object] = {}
    for pair in pairs:
        changes = _merged(changes, _parsed(pair))
    if "preset" in changes:
        raise RecipeError(f"preprocess {where}: found the key 'preset', expected the preset's name alone, before all key=value")
    document = preprocess_to_dict(base)
    kinds = [table.get("kind") if isinstance(table, Mapping) else None for table in (document["resize"], changes.get("resize"))]
    if kinds[1] not in (None, kinds[0]):
        del document["resize"]  # the other keys of another kind have no meaning here
    return preprocess_from_dict(_merged(document, changes), where=where)


def _merged(document: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """`document` with `changes`, which leave the keys of a table that they do not name."""
    tables = {key: {**old, **new} for key, new in changes.items() if isinstance(old := document.get(key), dict) and isinstance(new, dict)}
    return {**document, **changes, **tables}


def _parsed(pair: str | Path) -> dict[str, object]:
    if not _is_pair(pair):
        raise RecipeError(f"preprocess: found {str(pair)!r} after the first place, expected key=value; a preset or file stands first")
    try:
        return tomllib.loads(str(pair))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            f"preprocess: found {str(pair)!r}, expected key=value as in TOML ({error}), such as crop=[224, 224], resize.size=320 or, "
            'with its quotes, order="bgr"'
        ) from error


def _named(name: str | Path) -> Preprocess:
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix.lower() != ".toml":
        raise RecipeError(f"preprocess: found {str(name)!r}, expected {', '.join(PRESETS)}, or a .toml file")
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"preprocess {path}: cannot be read as TOML ({error}); check the file") from error
    return preprocess_from_dict(document, where=str(path))


def preprocess_to_dict(preprocess: Preprocess) -> dict[str, object]:
    """Return `preprocess` as a plain dict, which JSON and TOML can hold and `preprocess_from_dict` reads back."""
    return asdict(preprocess)


def preprocess_from_dict(document: Mapping[str, object], *, where: str) -> Preprocess:
    """Check a plain dict and return its `Preprocess`; `where` names the file in messages.

    Raises:
        RecipeError: a key or value is wrong.
    """
    fields = dict(document)
    preset = fields.pop("preset", None)
    if preset is not None:
        if preset not in PRESETS:
            raise RecipeError(f"preprocess {where}: preset: found {preset!r}, expected one of {', '.join(PRESETS)}")
        fields = {**asdict(PRESETS[str(preset)]), **fields}
    resize = _resize(fields.pop("resize", {"kind": "exact"}), where=where)
    return replace(_checked(Preprocess, fields, where=where, prefix=""), resize=resize)


def _resize(table: object, *, where: str) -> Resize:
    kind = table.get("kind") if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping) or kind not in RESIZES:
        raise RecipeError(f"preprocess {where}: resize: found {table!r}, expected a table with kind = one of {', '.join(RESIZES)}")
    return _checked(RESIZES[str(kind)], table, where=where, prefix="resize.")


def _checked(kind: type[_T], fields: Mapping[str, object], *, where: str, prefix: str) -> _T:
    """Validate at the file boundary; strict, but with lists for tuples, which is what pydantic does for JSON."""
    from pydantic import TypeAdapter, ValidationError

    keys = [field.name for field in dataclass_fields(kind)]
    unknown = sorted(set(fields) - set(keys))
    if unknown:
        raise RecipeError(f"preprocess {where}: found unknown key {prefix + unknown[0]!r}, expected {', '.join(keys)}; check its spelling")
    try:
        return TypeAdapter(kind).validate_json(json.dumps(fields, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = prefix + str(first["loc"][0])
        raise RecipeError(f"preprocess {where}: {key}: found {first['input']!r}, expected otherwise: {first['msg']}") from error
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from error
