from __future__ import annotations

import numpy as np
import pytest
from tests.graph.networks import network, place
from tests.graph.placements import CASES, Case

from zeropoint.errors import RecipeError
from zeropoint.graph.facts import Fact
from zeropoint.graph.load import load
from zeropoint.graph.prepare import prepare
from zeropoint.graph.sites import Placement, find_sites
from zeropoint.targets import TARGETS, get_target

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_target = pytest.mark.parametrize("target", TARGETS)


def pairs(placement: Placement) -> dict[str, str]:
    return {site.tensor: " ".join(f"{reader.node}.{reader.input}" for reader in site.readers) for site in placement.activations}


def together(placement: Placement) -> list[str]:
    groups: dict[str, list[str]] = {}
    for site in placement.activations:
        groups.setdefault(site.group, []).append(site.tensor)
    return sorted(" ".join(sorted(tensors)) for tensors in groups.values() if len(tensors) > 1)


@every_target
@every_case
def test_pairs_stand_where_the_target_wants_them(case: Case, target: str) -> None:
    _, _, placement = place(case.network, target)
    assert pairs(placement) == case.expected(target).pairs


@every_target
@every_case
def test_tensors_share_a_scale_along_operators_that_move_values(case: Case, target: str) -> None:
    _, _, placement = place(case.network, target)
    assert together(placement) == sorted(case.expected(target).together)


@every_target
@every_case
def test_what_stays_in_float_is_noted(case: Case, target: str) -> None:
    _, _, placement = place(case.network, target)
    expected = case.expected(target).notes
    assert {note.where for note in placement.notes} == set(expected)
    for note in placement.notes:
        assert "stays in float: " in note.reason
        assert expected[note.where] in note.reason


# --- weights ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "inputs", "shape", "reader", "axis"),
    [
        pytest.param("y = Conv(x, w)", "float[1,16,8,8] x", (20, 16, 3, 3), 1, 0, id="Conv"),
        pytest.param("y = Conv(x, w)", "float[1,16,8] x", (20, 16, 3), 1, 0, id="Conv, 1 axis"),
        pytest.param("y = Conv(x, w)", "float[1,16,4,4,4] x", (20, 16, 3, 3, 3), 1, 0, id="Conv, 3 axes"),
        pytest.param("y = Conv <group=2> (x, w)", "float[1,16,8,8] x", (20, 8, 3, 3), 1, 0, id="Conv, grouped"),
        pytest.param("y = Conv <group=16> (x, w)", "float[1,16,8,8] x", (16, 1, 3, 3), 1, 0, id="Conv, depthwise"),
        pytest.param("y = ConvTranspose(x, w)", "float[1,16,8,8] x", (16, 20, 3, 3), 1, 1, id="ConvTranspose"),
        pytest.param("y = ConvTranspose <group=2> (x, w)", "float[1,16,8,8] x", (16, 10, 3, 3), 1, 1, id="ConvTranspose, grouped"),
        pytest.param("y = Gemm(x, w)", "float[4,16] x", (16, 20), 1, 1, id="Gemm"),
        pytest.param("y = Gemm <transB=1> (x, w)", "float[4,16] x", (20, 16), 1, 0, id="Gemm, transB"),
        pytest.param("y = MatMul(x, w)", "float[4,16] x", (16, 20), 1, 1, id="MatMul"),
        pytest.param("y = MatMul(x, w)", "float[2,4,16] x", (16, 20), 1, 1, id="MatMul of batched data"),
        pytest.param("y = MatMul(x, w)", "float[2,4,16] x", (2, 16, 20), 1, None, id="MatMul by batched weights"),
        pytest.param("y = MatMul(x, w)", "float[32,16] x", (16,), 1, None, id="MatMul by a vector"),
        pytest.param("y = MatMul(w, x)", "float[16,20] x", (24, 16), 0, 0, id="MatMul, the weight on the left"),
        pytest.param("y = MatMul(w, x)", "float[16,20] x", (16,), 0, None, id="MatMul of a vector"),
    ],
)
def test_weights_have_a_scale_for_each_output_channel(
    body: str, inputs: str, shape: tuple[int, ...], reader: int, axis: int | None
) -> None:
    _, _, placement = place(network(body, inputs=inputs, weights={"w": shape}), "openvino")
    [site] = placement.weights
    [use] = site.uses
    assert (site.tensor, site.axis) == ("w", axis)
    assert (use.reader.node, use.reader.input, use.data) == ("y", reader, "x")
    assert use.bias == (None if "MatMul" in body else "y/bias")


@pytest.mark.parametrize(
    ("bias", "expected"), [("b", "b"), ("x2", None), ("", "y/bias")], ids=["a constant bias", "a computed bias", "a bias left out"]
)
def test_weights_know_their_bias(bias: str, expected: str | None) -> None:
    model = network(f"y = Conv(x, w, {bias})", inputs="float[1,16,8,8] x, float[16] x2", weights={"b": (16,)})
    _, _, placement = place(model, "tensorrt")
    assert [use.bias for site in placement.weights for use in site.uses] == [expected]


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_a_shared_weight_has_one_site(target: str) -> None:
    _, _, placement = place(network("a = Conv(x, w) r = Relu(a) c = Conv(r, w) y = Softmax(c)"), target)
    [site] = placement.weights
    assert (site.axis, [(use.reader.node, use.data) for use in site.uses]) == (0, [("a", "x"), ("c", "r")])
    assert placement.notes == ()


@pytest.mark.parametrize("target", TARGETS)
def test_a_weight_shared_on_different_axes_has_one_scale_and_a_note(target: str) -> None:
    body = "a = Gemm <transB=1> (x, w) r = Relu(a) c = Gemm(r, w) y = Softmax(c)"
    _, _, placement = place(network(body, inputs="float[4,16] x", weights={"w": (16, 16)}), target)
    assert [(site.tensor, site.axis, len(site.uses)) for site in placement.weights] == [("w", None, 2)]
    assert [(note.where, "on different axes" in note.reason) for note in placement.notes] == [("w", True)]


@pytest.mark.parametrize("target", TARGETS)
def test_a_table_that_is_a_weight_too_is_gathered_in_float(target: str) -> None:
    body = "e = Gather <axis=1> (table, ids) f = Transpose <perm=[1,0]> (e) y = MatMul(f, table)"
    _, _, placement = place(network(body, inputs="int64[5] ids", weights={"table": (16, 32)}), target)
    assert pairs(placement) == {"f": "y.0"}
    assert [(site.tensor, [use.reader.node for use in site.uses]) for site in placement.weights] == [("table", ["y"])]


def test_operators_of_another_domain_are_not_those_of_onnx() -> None:
    model = load(network("a = com.example.Conv(x, w1) r = com.example.Relu(a) c = Conv(r, w2) q = com.example.Relu(c) y = Softmax(q)"))
    prepare(model)
    fact = Fact(np.dtype(np.float32), (1, 16, 8, 8))
    placement = find_sites(model, dict.fromkeys(("x", "a", "r", "c", "w1", "w2"), fact), get_target("onnxruntime"))
    assert pairs(placement) == {"r": "c.0", "c": "q.0"}
    assert placement.notes == ()


# --- what the user asked for -----------------------------------------------------------------------------------------------

CHAIN = network("a = Conv(x, w1) r = Relu(a) c = Conv(r, w2) f = Flatten(c) y = Gemm(f, w3)", weights={"w3": (1024, 16)})


@pytest.mark.parametrize(
    ("exclude", "excluded"),
    [
        pytest.param((), set(), id="none"),
        pytest.param(("c",), {"c"}, id="name"),
        pytest.param(("[ac]",), {"a", "c"}, id="pattern"),
        pytest.param(("Conv",), {"a", "c"}, id="type"),
        pytest.param(("a", "Gemm"), {"a", "y"}, id="several"),
        pytest.param(("*",), {"a", "c", "y"}, id="all"),
    ],
)
def test_excluded_nodes_stay_in_float(exclude: tuple[str, ...], excluded: set[str]) -> None:
    _, _, placement = place(CHAIN, "tensorrt", exclude=exclude)
    assert {reader.node for site in placement.activations for reader in site.readers} == {"a", "c", "y"} - excluded
    assert {use.reader.node for site in placement.weights for use in site.uses} == {"a", "c", "y"} - excluded
    assert {note.where for note in placement.notes} == excluded
    assert all("excluded by name or operator type" in note.reason for note in placement.notes)


@pytest.mark.parametrize("option", ["include", "exclude"])
@pytest.mark.parametrize(
    ("pattern", "like"),
    [
        pytest.param("Gem", "'a', 'r', 'c'", id="a part of a type"),
        pytest.param("C", "'a', 'r', 'c'", id="case counts"),
        pytest.param("cc", "'c'", id="a name misspelt"),
        pytest.param("stem.*", "'a', 'r', 'c'", id="a pattern of no name"),
        pytest.param("", "'a', 'r', 'c'", id="nothing"),
    ],
)
def test_a_pattern_that_fits_nothing_is_an_error_with_what_there_is(option: str, pattern: str, like: str) -> None:
    patterns: dict[str, list[str]] = {option: ["Conv", pattern]}
    with pytest.raises(RecipeError) as raised:
        place(CHAIN, "tensorrt", **patterns)
    assert str(raised.value) == (
        f"{option}: found {pattern!r}, which fits no node and no operator type of the prepared network; expected a node's name or a shell "
        f"pattern for several (as {like}), or one of Conv, Flatten, Gemm, Relu"
    )


@pytest.mark.parametrize(
    ("option", "pattern", "target", "what"),
    [
        pytest.param(
            "exclude", "Relu", "tensorrt", "computes in integers; expected one of those (Conv 'a', Conv 'c', Gemm 'y')", id="fuses"
        ),
        pytest.param(
            "exclude", "r", "onnxruntime", "computes in integers; expected one of those (Conv 'a', Conv 'c', Gemm 'y')", id="by name"
        ),
        pytest.param(
            "exclude", "Flatten", "openvino", "computes in integers; expected one of those (Conv 'a', Conv 'c', Gemm 'y')", id="moves"
        ),
        pytest.param("include", "Conv", "tensorrt", "holds back; expected one of those (none)", id="not held back"),
        pytest.param("include", "*", "openvino", "holds back; expected one of those (none)", id="all"),
    ],
)
def test_a_pattern_that_changes_nothing_is_an_error(option: str, pattern: str, target: str, what: str) -> None:
    patterns: dict[str, list[str]] = {option: [pattern]}
    with pytest.raises(RecipeError) as raised:
        place(CHAIN, target, **patterns)
    assert str(raised.value) == (
        f"{option}: found {pattern!r}, which fits no operator that {target} {what}; it would change nothing, so leave it out"
    )


@pytest.mark.parametrize("include", [("a",), ("Conv",), ("*",)])
def test_a_pattern_may_include_a_depthwise_stem(include: tuple[str, ...]) -> None:
    model = network("a = Conv <group=16> (x, w1) y = Softmax(a)", weights={"w1": (16, 1, 3, 3)})
    assert pairs(place(model, "tensorrt")[2]) == {}
    assert pairs(place(model, "tensorrt", include=include)[2]) == {"x": "a.0"}


def test_an_excluded_add_is_no_residual() -> None:
    model = network("a = Conv(x, w1) d = Add(a, x) y = Softmax(d)")
    _, _, placement = place(model, "tensorrt", exclude=["d"])
    assert pairs(placement) == {"x": "a.0"}


@pytest.mark.parametrize(
    ("include", "exclude", "quantized"),
    [
        pytest.param((), (), set(), id="held back"),
        pytest.param(("u",), (), {"u"}, id="included by name"),
        pytest.param(("ConvTranspose",), (), {"u", "v"}, id="included by type"),
        pytest.param(("[uv]",), (), {"u", "v"}, id="included by pattern"),
        pytest.param(("ConvTranspose",), ("v",), {"u"}, id="excluded all the same"),
    ],
)
def test_operators_that_are_held_back_are_quantized_where_included(
    include: tuple[str, ...], exclude: tuple[str, ...], quantized: set[str]
) -> None:
    model = network("u = ConvTranspose(x, w1) v = ConvTranspose(u, w2) y = Softmax(v)")
    _, _, placement = place(model, "tensorrt", include=include, exclude=exclude)
    assert {use.reader.node for site in placement.weights for use in site.uses} == quantized
    reasons = {note.where: note.reason for note in placement.notes}
    assert set(reasons) == {"u", "v"} - quantized
    assert all("seldom pays on tensorrt" in reasons[node] for node in {"u", "v"} - quantized - set(exclude))


def test_a_weight_that_is_an_output_of_which_no_shape_is_told_is_one_like_others() -> None:
    _, _, placement = place(network("a = Conv(x, w1) y = Conv(a, w2)", outputs="y, w1"), "tensorrt")
    assert [(site.tensor, site.axis) for site in placement.weights] == [("w1", 0), ("w2", 0)]


@pytest.mark.parametrize("target", TARGETS)
def test_placement_is_the_same_every_time(target: str) -> None:
    model = next(case for case in CASES if case.name == "Concat of tensors with other readers").network
    assert place(model, target)[2] == place(model, target)[2]
