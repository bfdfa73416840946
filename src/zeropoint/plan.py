"""The plan: per tensor, what was decided and why. It can be saved, read, diffed, edited by hand and started from.

A plan alone is enough to turn the prepared network into the quantized one: each entry names a tensor, the node inputs that read it
through a Q/DQ pair, and the numbers of that pair. `docs/plan.md` describes the file.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from zeropoint.errors import PlanError, RecipeError
from zeropoint.notes import Note
from zeropoint.numerics.affine import QParams, qparams_from_range
from zeropoint.numerics.decimals import shortest_decimals
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Granularity, PerBlock, PerChannel, PerTensor, Spec

VERSION = 1
ALWAYS_WRITTEN = frozenset({"entries", "corrections", "notes"})  # the other lists only where they hold something
Role = Literal["activation", "weight", "bias"]


@dataclass(frozen=True, slots=True, order=True)
class Reader:
    """One node input: the node's name and the position of the input."""

    node: str
    input: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The decision for one tensor.

    scale and zero_point have one number per tensor, one per index of `axis`, or one per run of `block` elements along it: those lie in the
    order of an array of `scale_shape`. `range` is what the solver chose for an activation and () elsewhere. `readers` are the node
    inputs that see the dequantized tensor; all others keep the float one.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    tensor: str
    role: Role
    format: str
    symmetric: bool
    narrow: bool = False
    axis: int | None = None
    block: int | None = None
    scale_shape: tuple[int, ...] = ()
    range: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    solver: str
    reason: str
    group: str = ""
    readers: tuple[Reader, ...]

    @property
    def spec(self) -> Spec:
        """The intent behind the numbers."""
        granularity: Granularity = PerTensor()
        if self.axis is not None:
            granularity = PerChannel(self.axis) if self.block is None else PerBlock(self.axis, self.block)
        return Spec(FORMATS[self.format], self.symmetric, granularity, self.narrow)

    def qparams(self) -> QParams:
        """Return the numbers as arrays, for numerics.affine."""
        scale = np.asarray(self.scale, np.float32)
        zero_point = np.asarray(self.zero_point, FORMATS[self.format].dtype)
        if self.block is not None:
            scale = scale.reshape(self.scale_shape)
            zero_point = zero_point if zero_point.size == 1 else zero_point.reshape(self.scale_shape)
        if zero_point.size == 1:
            zero_point = np.broadcast_to(zero_point, scale.shape)
        if self.axis is None and scale.shape == zero_point.shape == (1,):
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        return QParams(scale, zero_point, self.spec.format, self.spec.granularity, self.narrow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What is added to the bias called `tensor`: one number for each of its elements."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    tensor: str
    added: tuple[float, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tied:
    """One tensor, and which of the factors divides which of its elements.

    An array of `shape` that broadcasts against the tensor holds, in its order, the numbers of the factors: 0, 1, ... where `index` is
    empty, else those in `index`, of which -1 stands for elements that stay as they are. `shifted` tells whether shifts apply too.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    tensor: str
    shape: tuple[int, ...]
    index: tuple[int, ...] = ()
    shifted: bool = False

    @property
    def axis(self) -> int | None:
        """The tensor's axis that holds the channels, counted from the end; None where they lie across several axes."""
        axes = [axis - len(self.shape) for axis, size in enumerate(self.shape) if size > 1]
        return axes[0] if len(axes) == 1 else None

    def numbers(self) -> npt.NDArray[np.intp]:
        """Return the numbers of the factors, of `shape`."""
        return np.array(self.index or range(int(np.prod(self.shape))), np.intp).reshape(self.shape)

    def spread(self, values: Sequence[float], default: float) -> npt.NDArray[np.float64]:
        """Return the value of each factor, or `default` for what stays as it is, as an array that broadcasts against the tensor."""
        return np.array([*values, default], np.float64)[self.numbers(), ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What is done to the tensors of a Scalable: (t - shift) / factor, for each of its channels. Without `shifts` nothing is subtracted."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    tied: tuple[Tied, ...]
    readers: tuple[Reader, ...]
    free: bool
    loose: tuple[str, ...] = ()
    factors: tuple[float, ...]
    shifts: tuple[float, ...] = ()
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """Other codes than the nearest for the weight called `tensor`.

    steps: how many codes further each one lies: int8 in the weight's order, compressed by zlib, in base 64.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    tensor: str
    steps: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a refinement brought: the SQNR of the outputs in dB without and with it, on so many samples that it was not fitted on."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: str
    before_db: float
    after_db: float
    samples: int
    kept: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a plan was made from. model: the class, where it was a PyTorch module. model_sha256: of the file or bytes that were given."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    zeropoint: str = ""
    onnxruntime: str = ""
    model: str = ""
    model_sha256: str = ""
    calibration_data: str = ""
    batch_size: int = 1
    solver: str = ""
    weight_solver: str = ""
    weight_format: str = ""
    weight_granularity: str = ""
    bias: str = ""
    effort: str = ""
    without: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All decisions for one network and one target, with the nodes that stay in float and why."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    version: int = VERSION
    target: str
    entries: tuple[Entry, ...]
    corrections: tuple[Correction, ...] = ()
    scalings: tuple[Scaling, ...] = ()
    roundings: tuple[Rounding, ...] = ()
    steps: tuple[Step, ...] = ()
    notes: tuple[Note, ...] = ()
    provenance: Provenance = Provenance()

    def entry(self, tensor: str) -> Entry:
        """Return the entry of `tensor`.

        Raises:
            KeyError: the plan leaves that tensor in float.
        """
        for entry in self.entries:
            if entry.tensor == tensor:
                return entry
        raise KeyError(tensor)

    @property
    def min_opset(self) -> int:
        """The least opset whose DequantizeLinear reads all of the codes."""
        return max((entry.spec.opset for entry in self.entries), default=0)

    @property
    def tensors(self) -> frozenset[str]:
        """The names of the tensors that are quantized."""
        return frozenset(entry.tensor for entry in self.entries)


def numbers(qparams: QParams) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return scale and zero point as an entry holds them: shortest decimals that read back as the same float32; equal zero points once."""
    scale = shortest_decimals(qparams.scale)
    zero_point = tuple(int(value) for value in qparams.zero_point.reshape(-1))
    return scale, zero_point if len(set(zero_point)) > 1 else zero_point[:1]


def rounding(tensor: str, steps: npt.NDArray[np.integer], reason: str) -> Rounding:
    """Return the rounding by which each code lies that many `steps`, each within int8, from the nearest."""
    return Rounding(tensor=tensor, steps=b64encode(zlib.compress(steps.astype(np.int8).tobytes(), 1)).decode(), reason=reason)


def stored_steps(rounding: Rounding) -> npt.NDArray[np.int8]:
    """Return the steps of a rounding, one after the other.

    Raises:
        RecipeError: the text is not what `rounding` writes.
    """
    try:
        return np.frombuffer(zlib.decompress(b64decode(rounding.steps, validate=True)), np.int8)
    except (ValueError, zlib.error) as error:
        raise RecipeError(f"rounding: steps: found text that cannot be read ({error}), expected what quantize wrote") from None


def to_json(plan: Plan) -> str:
    """Return the plan as readable JSON: a line for each field, also where that is a list of a thousand scales; defaults left out."""
    encode = json.JSONEncoder(default=asdict).encode
    told = {"version": plan.version, "target": plan.target, "provenance": plan.provenance}
    head = [f'"{name}": {encode(value)}' for name, value in told.items()]
    lists = [(name, _field_by_field) for name in ("entries", "corrections", "scalings", "roundings")]
    lists += [(name, _on_a_line) for name in ("steps", "notes")]
    told_lists = [
        f'"{name}": [\n{text}\n]'
        for name, write in lists
        if (text := ",\n".join(write(item, encode) for item in getattr(plan, name))) or name in ALWAYS_WRITTEN
    ]
    return "{\n" + ",\n".join([*head, *told_lists]) + "\n}\n"


def _on_a_line(item: Any, encode: Callable[[object], str]) -> str:
    return "  " + encode(_told(item))


def _field_by_field(item: Any, encode: Callable[[object], str]) -> str:
    return "  {\n" + ",\n".join(f'    "{name}": {encode(value)}' for name, value in _told(item).items()) + "\n  }"


def _told(item: Any) -> dict[str, object]:
    """The fields that are not at their defaults, as they are: a copy of each number would cost more than writing it."""
    told = ((field.name, getattr(item, field.name), field.default) for field in fields(item))
    return {name: value for name, value, default in told if value != default}


def from_json(text: str, *, source: str = "plan") -> Plan:
    """Read a plan, also one edited by hand.

    An entry whose scale and zero point were removed gets them from its range; an entry that has both must have them agree.

    Raises:
        PlanError: malformed, of another version, or inconsistent; the message names the entry and field.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        plan = TypeAdapter(Plan).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the text"
        raise PlanError(
            f"{source}: {where}: {first['msg']}, found {str(first['input'])[:80]!r}; compare with a plan that quantize wrote"
        ) from None
    if plan.version != VERSION:
        raise PlanError(f"{source}: version: found {plan.version}, expected {VERSION}; make the plan again with this zeropoint")
    for kind, items in (("entries", plan.entries), ("corrections", plan.corrections), ("roundings", plan.roundings)):
        repeated = [tensor for tensor, times in Counter(item.tensor for item in items).items() if times > 1]
        if repeated:
            raise PlanError(f"{source}: {kind}: found {repeated[0]!r} more than once, expected each tensor once; remove the others")
    return replace(plan, entries=tuple(_completed(entry, source) for entry in plan.entries))


def origin_notes(plan: Plan, sha256: str) -> tuple[Note, ...]:
    """Tell where a plan was made from another file than the one of that hash."""
    if plan.provenance.model_sha256 in ("", sha256):
        return ()
    reason = "it was made from another file: where the weights differ its scales do not fit them; make a plan from this one"
    return (Note("plan", reason, kind="warning"),)


def load_plan(path: str | Path) -> Plan:
    """Read a plan from a file.

    Raises:
        PlanError: there is no such file, or it holds no valid plan.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"plan {path}: cannot be read ({error}); expected the JSON file that quantize wrote beside its model") from None
    return from_json(text, source=str(path))


def _completed(entry: Entry, source: str) -> Entry:
    where = f"{source}: entry {entry.tensor!r}"
    if entry.format not in FORMATS:
        raise PlanError(f"{where}: format: found {entry.format!r}, expected one of {', '.join(FORMATS)}")
    _check_block(entry, where)
    from_range = _numbers_from_range(entry, where)
    if not entry.scale:
        if not from_range:
            raise PlanError(f"{where}: found neither scale nor range, expected one of them")
        return replace(entry, scale=from_range[0], zero_point=from_range[1])
    _check_numbers(entry, where)
    if from_range and not (np.allclose(entry.scale, from_range[0], rtol=1e-5, atol=0.0) and entry.zero_point == from_range[1]):
        raise PlanError(
            f"{where}: range {list(entry.range)} gives scale {from_range[0]} and zero point {from_range[1]}, found {entry.scale} and "
            f"{entry.zero_point}; remove scale and zero_point to have them made from the range, or range to keep them"
        )
    return entry


def _numbers_from_range(entry: Entry, where: str) -> tuple[tuple[float, ...], tuple[int, ...]] | None:
    if not entry.range:
        return None
    if len(entry.range) != 2:
        raise PlanError(f"{where}: range: found {len(entry.range)} numbers, expected [lo, hi]")
    try:
        return numbers(qparams_from_range(*entry.range, spec=entry.spec))
    except RecipeError as error:
        raise PlanError(f"{where}: {error}") from None


def _check_block(entry: Entry, where: str) -> None:
    if entry.block is None and not entry.scale_shape:
        return
    if entry.role != "weight" or entry.axis is None or entry.block is None or entry.block < 1:
        raise PlanError(
            f"{where}: block: found {entry.block} in the role of {entry.role} with axis {entry.axis}, expected 1 or more, in a weight, and "
            "the axis that its runs lie along; or leave out block and scale_shape"
        )
    rank = len(entry.scale_shape)
    if not -rank <= entry.axis < rank or min(entry.scale_shape) < 1 or prod(entry.scale_shape) != len(entry.scale):
        raise PlanError(
            f"{where}: scale_shape: found {list(entry.scale_shape)} for {len(entry.scale)} scales and axis {entry.axis}, expected the "
            "weight's shape with the number of blocks along that axis"
        )


def _check_numbers(entry: Entry, where: str) -> None:
    format = FORMATS[entry.format]
    with np.errstate(over="ignore", under="ignore"):
        scale = np.asarray(entry.scale, np.float32)
    unusable = [value for value, stored in zip(entry.scale, scale, strict=True) if not (np.isfinite(stored) and stored > 0)]
    if unusable:
        raise PlanError(f"{where}: scale: found {unusable[0]}, expected positive finite numbers, as float32 holds them")
    if len(entry.zero_point) not in (1, len(entry.scale)) or (entry.axis is None and len(entry.scale) != 1):
        raise PlanError(
            f"{where}: found {len(entry.scale)} scales and {len(entry.zero_point)} zero points with axis {entry.axis}, expected one scale "
            "per tensor, or one per index of the axis, and as many zero points or a single one"
        )
    if not all(format.qmin <= value <= format.qmax for value in entry.zero_point):
        raise PlanError(f"{where}: zero_point: found {entry.zero_point}, expected codes of {format.name}, {format.qmin} to {format.qmax}")
    if entry.symmetric and any(entry.zero_point):
        raise PlanError(f"{where}: zero_point: found {entry.zero_point} in a symmetric entry, expected 0; or set symmetric to false")
