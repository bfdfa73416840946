from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeropoint.errors import PlanError
from zeropoint.notes import Note
from zeropoint.numerics.affine import qparams_from_range
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import PerBlock, PerTensor, Spec
from zeropoint.plan import VERSION, Correction, Entry, Plan, Provenance, Reader, from_json, load_plan, numbers, to_json

Json = dict[str, Any]

ACTIVATION = Entry(
    tensor="x",
    role="activation",
    format="uint8",
    symmetric=False,
    range=(-1.0, 1.55),
    scale=(0.01,),
    zero_point=(100,),
    solver="mse",
    reason="mse 41.4 dB",
    group="x",
    readers=(Reader("conv", 0),),
)
WEIGHT = Entry(
    tensor="w",
    role="weight",
    format="int8",
    symmetric=True,
    narrow=True,
    axis=0,
    scale=(0.5, 0.25),
    zero_point=(0,),
    solver="minmax",
    reason="2 output channels",
    readers=(Reader("conv", 1),),
)
PLAN = Plan(
    target="onnxruntime",
    entries=(ACTIVATION, WEIGHT),
    corrections=(Correction(tensor="b", added=(0.5, -0.25), reason="mean error of the rounded weights"),),
    notes=(Note("add", "stays in float"),),
    provenance=Provenance(zeropoint="0.1.0", seed=3),
)


# --- the file --------------------------------------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=8)
positive = st.floats(min_value=2.0**-100, max_value=2.0**100, width=32)
readers = st.lists(st.builds(Reader, names, st.integers(0, 5)), max_size=3).map(tuple)


@st.composite
def activations(draw: st.DrawFn) -> Entry:
    spec = Spec(FORMATS[draw(st.sampled_from(["int8", "uint8", "int16", "uint16", "int4", "uint4"]))], draw(st.booleans()))
    lo, hi = sorted(draw(st.tuples(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30))))
    scale, zero_point = numbers(qparams_from_range(lo, hi, spec=spec))
    return Entry(
        tensor=draw(names),
        role="activation",
        format=spec.format.name,
        symmetric=spec.symmetric,
        range=(lo, hi),
        scale=scale,
        zero_point=zero_point,
        solver=draw(names),
        reason=draw(st.text()),
        group=draw(st.text(max_size=3)),
        readers=draw(readers),
    )


@st.composite
def constants(draw: st.DrawFn) -> Entry:
    axis = draw(st.none() | st.integers(0, 3))
    scale = tuple(draw(st.lists(positive, min_size=1, max_size=1 if axis is None else 5)))
    symmetric = draw(st.booleans())
    codes = st.just(0) if symmetric else st.integers(-8, 7)
    zero_point = draw(st.lists(codes, min_size=len(scale), max_size=len(scale)) | st.lists(codes, min_size=1, max_size=1))
    return Entry(
        tensor=draw(names),
        role=draw(st.sampled_from(["weight", "bias"])),
        format=draw(st.sampled_from(["int8", "int16", "int4", "int32"])),
        symmetric=symmetric,
        narrow=draw(st.booleans()),
        axis=axis,
        scale=scale,
        zero_point=tuple(zero_point),
        solver=draw(names),
        reason=draw(st.text()),
        readers=draw(readers),
    )


plans = st.builds(
    Plan,
    target=names,
    entries=st.lists(activations() | constants(), max_size=4, unique_by=lambda entry: entry.tensor).map(tuple),
    corrections=st.lists(
        st.builds(Correction, tensor=names, added=st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple), reason=st.text()),
        max_size=2,
        unique_by=lambda correction: correction.tensor,
    ).map(tuple),
    notes=st.lists(st.builds(Note, st.text(), st.text()), max_size=2).map(tuple),
    provenance=st.builds(Provenance, zeropoint=st.text(), calibration_data=st.text(), batch_size=st.integers(1, 99), seed=st.integers(0)),
)


@settings(max_examples=40)
@given(plans)
def test_a_plan_is_read_as_it_was_written(plan: Plan) -> None:
    text = to_json(plan)
    assert from_json(text) == plan
    assert to_json(from_json(text)) == text


def test_the_file_can_be_read_by_people() -> None:
    lines = [line.strip().rstrip(",") for line in to_json(PLAN).splitlines()]
    assert lines[:3] == ["{", f'"version": {VERSION}', '"target": "onnxruntime"']
    assert '"range": [-1.0, 1.55]' in lines
    assert '"readers": [{"node": "conv", "input": 0}]' in lines
    assert '{"where": "add", "reason": "stays in float"}' in lines


def test_each_field_has_a_line_and_defaults_have_none() -> None:
    written = json.loads(to_json(PLAN))["entries"]
    assert set(written[0]) == {
        "tensor",
        "role",
        "format",
        "symmetric",
        "range",
        "scale",
        "zero_point",
        "solver",
        "reason",
        "group",
        "readers",
    }
    assert set(written[1]) == {
        "tensor",
        "role",
        "format",
        "symmetric",
        "narrow",
        "axis",
        "scale",
        "zero_point",
        "solver",
        "reason",
        "readers",
    }
    long = Plan(target="tensorrt", entries=(Entry(**{**_fields(WEIGHT), "scale": tuple(1.0 + i for i in range(1000))}),))
    assert len(to_json(long).splitlines()) < 30


def _fields(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__dataclass_fields__ if not name.startswith("_")}


def test_a_plan_finds_its_entries_by_tensor() -> None:
    assert PLAN.tensors == {"x", "w"}
    assert PLAN.entry("w") is WEIGHT
    with pytest.raises(KeyError, match="other"):
        PLAN.entry("other")


def test_an_entry_gives_its_numbers_as_arrays() -> None:
    x, w = ACTIVATION.qparams(), WEIGHT.qparams()
    assert (x.scale.shape, x.zero_point.shape, x.zero_point.dtype.name, x.granularity) == ((), (), "uint8", PerTensor())
    assert (w.scale.tolist(), w.zero_point.tolist(), w.zero_point.dtype.name, w.narrow) == ([0.5, 0.25], [0, 0], "int8", True)


def test_an_entry_with_blocks_gives_them_their_shape() -> None:
    content = json.loads(edited(lambda plan: plan["entries"][1].update(block=2, scale_shape=[1, 2], format="int4")))
    w = from_json(json.dumps(content)).entry("w")
    assert (w.spec.granularity, w.spec.qmin, w.spec.qmax, w.spec.opset) == (PerBlock(0, 2), -7, 7, 21)
    assert (w.qparams().scale.tolist(), w.qparams().zero_point.tolist()) == ([[0.5, 0.25]], [[0, 0]])
    assert from_json(to_json(replace(PLAN, entries=(w,)))).entries == (w,)


# --- edited by hand --------------------------------------------------------------------------------------------------------


def edited(edit: Callable[[Json], object]) -> str:
    content = json.loads(to_json(PLAN))
    edit(content)
    return json.dumps(content)


def put(*path: str | int, value: object) -> Callable[[Json], None]:
    """Return an edit that puts `value` at `path`."""

    def edit(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return edit


def drop(*paths: tuple[str | int, ...]) -> Callable[[Json], None]:
    """Return an edit that removes what stands at each of `paths`."""

    def edit(root: Json) -> None:
        for path in paths:
            content: Any = root
            for step in path[:-1]:
                content = content[step]
            del content[path[-1]]

    return edit


def entry(index: int, **values: object) -> Callable[[Json], None]:
    return lambda content: content["entries"][index].update(values)


def both(*edits: Callable[[Json], None]) -> Callable[[Json], None]:
    def edit(content: Json) -> None:
        for one in edits:
            one(content)

    return edit


def blocked(**values: object) -> Callable[[Json], None]:
    return entry(1, **{"block": 2, "axis": 0, "scale_shape": [1, 2], **values})


BROKEN = [
    # --- the form of the file
    pytest.param(put("extra", value=1), "extra: Unexpected keyword", id="unknown key"),
    pytest.param(entry(0, scales=[1.0]), r"entries\.0\.scales: Unexpected keyword", id="unknown key of an entry"),
    pytest.param(
        put("entries", 0, "readers", 0, "port", value=1), r"entries\.0\.readers\.0\.port: Unexpected", id="unknown key of a reader"
    ),
    pytest.param(put("notes", 0, "severity", value=1), r"notes\.0\.severity: Unexpected", id="unknown key of a note"),
    pytest.param(put("corrections", 0, "scale", value=1), r"corrections\.0\.scale: Unexpected", id="unknown key of a correction"),
    pytest.param(put("provenance", "host", value=""), r"provenance\.host: Unexpected", id="unknown key of the provenance"),
    pytest.param(drop(("target",)), "target: Field required", id="no target"),
    pytest.param(drop(("entries",)), "entries: Field required", id="no entries"),
    pytest.param(drop(("entries", 0, "format")), r"entries\.0\.format: Field required", id="no format"),
    pytest.param(put("entries", value={}), "entries: Input should be a valid array", id="entries of another type"),
    pytest.param(entry(0, scale="0.01"), r"entries\.0\.scale: Input should be a valid array, found '0\.01'", id="scale is text"),
    pytest.param(entry(0, scale=0.01), r"entries\.0\.scale: Input should be a valid array", id="scale is a number"),
    pytest.param(entry(0, scale=["0.01"]), r"entries\.0\.scale\.0: Input should be a valid number", id="scale holds text"),
    pytest.param(entry(0, zero_point=[1.5]), r"entries\.0\.zero_point\.0: Input should be a valid integer", id="zero point 1.5"),
    pytest.param(entry(0, symmetric="no"), r"entries\.0\.symmetric: Input should be a valid boolean", id="symmetric is text"),
    pytest.param(entry(0, role="input"), r"entries\.0\.role: Input should be 'activation', 'weight' or 'bias'", id="unknown role"),
    pytest.param(entry(0, axis="0"), r"entries\.0\.axis: Input should be a valid integer", id="axis is text"),
    pytest.param(entry(0, readers=[["conv", 0]]), r"entries\.0\.readers\.0: Input should be an object", id="reader is a list"),
    # --- the version
    pytest.param(put("version", value=VERSION + 1), f"version: found {VERSION + 1}, expected {VERSION}; make the plan again", id="newer"),
    pytest.param(put("version", value=0), f"version: found 0, expected {VERSION}", id="older"),
    pytest.param(put("version", value="1"), "version: Input should be a valid integer", id="version is text"),
    # --- numbers that cannot be
    pytest.param(entry(0, format="int7"), r"entry 'x': format: found 'int7', expected one of int8, uint8", id="unknown format"),
    pytest.param(entry(1, scale=[0.5, 0.0]), r"entry 'w': scale: found 0\.0, expected positive finite numbers", id="scale 0"),
    pytest.param(entry(1, scale=[0.5, -1.0]), r"entry 'w': scale: found -1\.0, expected positive finite numbers", id="scale -1"),
    pytest.param(entry(1, scale=[float("nan")] * 2), "entry 'w': scale: found nan", id="scale NaN"),
    pytest.param(entry(1, scale=[float("inf")] * 2), "entry 'w': scale: found inf", id="scale infinite"),
    pytest.param(entry(1, scale=[0.5, 1e-60]), "entry 'w': scale: found 1e-60", id="scale below float32"),
    pytest.param(entry(1, scale=[1e300] * 2), r"entry 'w': scale: found 1e\+300", id="scale beyond float32"),
    pytest.param(
        entry(1, zero_point=[-129], symmetric=False),
        r"entry 'w': zero_point: found \(-129,\), expected codes of int8, -128 to 127",
        id="zero point -129",
    ),
    pytest.param(
        both(drop(("entries", 0, "range")), entry(0, zero_point=[256])),
        "entry 'x': zero_point: found .256,.*uint8, 0 to 255",
        id="zero point 256",
    ),
    pytest.param(
        entry(1, zero_point=[1]), r"entry 'w': zero_point: found \(1,\) in a symmetric entry, expected 0", id="symmetric, zero point 1"
    ),
    pytest.param(entry(1, axis=None), "entry 'w': found 2 scales and 1 zero points with axis None", id="two scales without an axis"),
    pytest.param(entry(1, zero_point=[0, 0, 0]), "entry 'w': found 2 scales and 3 zero points", id="three zero points for two scales"),
    pytest.param(entry(1, zero_point=[]), "entry 'w': found 2 scales and 0 zero points", id="no zero points"),
    pytest.param(entry(0, range=[1.0]), r"entry 'x': range: found 1 numbers, expected \[lo, hi\]", id="range of one number"),
    pytest.param(
        entry(0, range=[1.55, -1.0]), "entry 'x': range: found .1.55, -1.0., expected finite bounds with lo <= hi", id="range reversed"
    ),
    pytest.param(entry(0, range=[-1.0, float("inf")]), "entry 'x': range: found .-1.0, inf., expected finite bounds", id="range infinite"),
    pytest.param(
        drop(("entries", 1, "scale"), ("entries", 1, "zero_point")), "entry 'w': found neither scale nor range", id="no numbers at all"
    ),
    # --- blocks
    pytest.param(blocked(block=0), "entry 'w': block: found 0 in the role of weight with axis 0, expected 1 or more", id="block 0"),
    pytest.param(blocked(block=-1), "entry 'w': block: found -1 ", id="block -1"),
    pytest.param(blocked(block=None), "entry 'w': block: found None ", id="a shape without blocks"),
    pytest.param(blocked(axis=None), "entry 'w': block: found 2 in the role of weight with axis None", id="blocks without an axis"),
    pytest.param(blocked(role="bias"), "entry 'w': block: found 2 in the role of bias", id="blocks of a bias"),
    pytest.param(entry(0, block=2, axis=0, scale_shape=[1]), "entry 'x': block: found 2 in the role of activation", id="of an activation"),
    pytest.param(blocked(scale_shape=[]), r"entry 'w': scale_shape: found \[\] for 2 scales and axis 0", id="blocks without a shape"),
    pytest.param(blocked(scale_shape=[2, 2]), r"entry 'w': scale_shape: found \[2, 2\] for 2 scales", id="another number of scales"),
    pytest.param(blocked(axis=2), r"entry 'w': scale_shape: found \[1, 2\] for 2 scales and axis 2", id="an axis beyond the shape"),
    pytest.param(blocked(scale_shape=[-1, -2]), r"entry 'w': scale_shape: found \[-1, -2\]", id="a shape below 1"),
    pytest.param(blocked(block="2"), r"entries\.1\.block: Input should be a valid integer", id="block is text"),
    # --- numbers that contradict each other
    pytest.param(
        entry(0, range=[-1.0, 2.0]),
        r"entry 'x': range \[-1\.0, 2\.0\] gives scale .*; remove scale and zero_point",
        id="range edited alone",
    ),
    pytest.param(entry(0, scale=[0.02]), r"entry 'x': range .* found \(0\.02,\) and \(100,\)", id="scale edited alone"),
    pytest.param(entry(0, zero_point=[101]), r"entry 'x': range .* found \(0\.01,\) and \(101,\)", id="zero point edited alone"),
    pytest.param(entry(0, range=[0.0, 255e-12], scale=[3e-12], zero_point=[0]), "entry 'x': range ", id="small scales that disagree"),
    pytest.param(lambda plan: plan["entries"].append(plan["entries"][0]), "entries: found 'x' more than once", id="an entry twice"),
    pytest.param(
        lambda plan: plan["corrections"].append(plan["corrections"][0]), "corrections: found 'b' more than once", id="a correction twice"
    ),
]


@pytest.mark.parametrize(("edit", "message"), BROKEN)
def test_a_broken_plan_says_which_entry_and_field(edit: Callable[[Json], object], message: str) -> None:
    assert from_json(edited(lambda content: None)) == PLAN
    with pytest.raises(PlanError, match=f"^here: {message}"):
        from_json(edited(edit), source="here")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("null", id="null"),
        pytest.param("[]", id="a list"),
        pytest.param("{}", id="an empty object"),
        pytest.param(to_json(PLAN)[:-20], id="truncated"),
        pytest.param(to_json(PLAN)[:40], id="truncated early"),
        pytest.param("target = 'tensorrt'", id="TOML"),
    ],
)
def test_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match=r"^plan: .*compare with a plan that quantize wrote$"):
        from_json(text)


def test_a_range_alone_gives_scale_and_zero_point() -> None:
    text = edited(drop(("entries", 0, "scale"), ("entries", 0, "zero_point")))
    assert from_json(text) == PLAN


def test_another_range_gives_another_scale_and_zero_point() -> None:
    without = drop(("entries", 0, "scale"), ("entries", 0, "zero_point"))
    found = from_json(edited(both(without, entry(0, range=[-2.0, 3.1])))).entry("x")
    assert (found.range, found.scale, found.zero_point) == ((-2.0, 3.1), (0.02,), (100,))


def test_a_scale_without_a_range_is_taken_as_it_is() -> None:
    found = from_json(edited(both(drop(("entries", 0, "range")), entry(0, scale=[0.02], zero_point=[7])))).entry("x")
    assert (found.range, found.scale, found.zero_point) == ((), (0.02,), (7,))


# --- on disk ---------------------------------------------------------------------------------------------------------------


def test_a_plan_is_loaded_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.plan.json"
    path.write_text(to_json(PLAN), encoding="utf-8")
    assert load_plan(path) == load_plan(str(path)) == PLAN


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "cannot be read .*No such file", id="missing"),
        pytest.param(b"\xff\xfe\x00", "cannot be read .*utf-8", id="not text"),
        pytest.param(to_json(PLAN).encode()[:99], "Invalid JSON", id="truncated"),
    ],
)
def test_a_file_that_holds_no_plan_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.plan.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PlanError, match=message) as raised:
        load_plan(path)
    assert str(path) in str(raised.value)


def test_a_folder_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot be read"):
        load_plan(tmp_path)
