from __future__ import annotations

import copy
import itertools
import math
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from zeropoint.autograd.fake_quantize import LEAST_SHARE, FakeQuantize, Learning, fake_quantize  # noqa: E402
from zeropoint.autograd.kernels import dispatch  # noqa: E402
from zeropoint.autograd.kernels.plain import Codes, Wanted  # noqa: E402
from zeropoint.errors import RecipeError  # noqa: E402
from zeropoint.numerics.affine import SMALLEST_SCALE, QParams, dequantize_array, quantize_array  # noqa: E402
from zeropoint.numerics.formats import FORMATS  # noqa: E402
from zeropoint.numerics.spec import Granularity, PerBlock, PerChannel, PerTensor, Spec  # noqa: E402

Array = np.ndarray[Any, Any]
Tensor = Any
INF, NAN = math.inf, math.nan
GRANULARITIES: list[Granularity] = [PerTensor(), PerChannel(1), PerChannel(-1), PerBlock(2, 5), PerBlock(-1, 4), PerBlock(0, 1)]
LEARNINGS: list[Learning] = ["fixed", "scale", "scale and zero point"]
SHAPE = (3, 4, 11)
SPECS = [
    pytest.param(Spec(FORMATS[name], symmetric, granularity, narrow), id=f"{name}-{symmetric=}-{granularity}-{narrow=}")
    for name, symmetric, granularity in itertools.product(("int8", "uint8", "int4", "uint16"), (True, False), GRANULARITIES)
    for narrow in ((False, True) if FORMATS[name].signed else (False,))
]
every_spec = pytest.mark.parametrize("spec", SPECS)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def scale_shape(granularity: Granularity) -> tuple[int, ...]:
    match granularity:
        case PerTensor():
            return ()
        case PerChannel(axis):
            return (SHAPE[axis],)
        case PerBlock(axis, size):
            return tuple(-(-n // size) if i == axis % len(SHAPE) else n for i, n in enumerate(SHAPE))


def some_qparams(spec: Spec, seed: int = 0) -> QParams:
    draw = np.random.default_rng(seed)
    shape = scale_shape(spec.granularity)
    scale = np.asarray(draw.uniform(0.01, 0.4, shape), np.float32)
    zero_point = np.zeros(shape) if spec.symmetric else np.asarray(draw.integers(spec.qmin, spec.qmax, shape))
    return QParams(scale, np.asarray(zero_point.astype(spec.format.dtype)), spec.format, spec.granularity, spec.narrow)


def values(shape: tuple[int, ...] = SHAPE, seed: int = 1) -> Array:
    """Values of many sizes, with infinities, both zeros, denormal numbers and halves."""
    draw = np.random.default_rng(seed)
    x = (draw.normal(size=shape) * np.exp(3 * draw.normal(size=shape))).astype(np.float32)
    nasty = np.array([0.0, -0.0, 1e-45, -1e-40, INF, -INF, 3e38, -3e38, 0.5, 1.5, 2.5, -2.5], np.float32)
    x.reshape(-1)[: nasty.size] = nasty
    return x


def deployed(x: Array, qparams: QParams) -> Array:
    return dequantize_array(quantize_array(x, qparams), qparams)


def same_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype == np.float32 and a.shape == b.shape and np.array_equal(a.view(np.int32), b.view(np.int32))


@pytest.mark.parametrize("learning", LEARNINGS)
@every_spec
def test_forward_is_what_is_deployed(spec: Spec, learning: Learning) -> None:
    qparams, x = some_qparams(spec), values()
    module = FakeQuantize(qparams, spec, len(SHAPE), learning=learning)
    assert same_bits(module(torch.from_numpy(x)).detach().numpy(), deployed(x, qparams))
    now = module.qparams()
    assert (now.scale.tobytes(), now.zero_point.tobytes()) == (qparams.scale.tobytes(), qparams.zero_point.tobytes())
    assert (now.scale.shape, now.format, now.granularity, now.narrow) == (qparams.scale.shape, spec.format, spec.granularity, spec.narrow)


@pytest.mark.parametrize("axis", [None, 1], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "uint16", "int4"])
def test_forward_is_what_onnx_runtime_computes(name: str, axis: int | None) -> None:
    spec = Spec(FORMATS[name], False, PerTensor() if axis is None else PerChannel(axis))
    qparams, x = some_qparams(spec), values()
    kind = getattr(onnx.TensorProto, name.upper())
    nodes = [onnx.helper.make_node(f"{way}Linear", [data, "s", "z"], [out], axis=axis or 0) for way, data, out in LINES]
    constants = [onnx.numpy_helper.from_array(qparams.scale, "s")]
    constants.append(onnx.helper.make_tensor("z", kind, qparams.zero_point.shape, qparams.zero_point.astype(np.int64).reshape(-1)))
    source, result = (onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, SHAPE) for end in ("x", "y"))
    graph = onnx.helper.make_graph(nodes, "pair", [source], [result], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    module = FakeQuantize(qparams, spec, len(SHAPE), learning="fixed")
    assert same_bits(module(torch.from_numpy(x)).numpy(), expected)


LINES = [("Quantize", "x", "q"), ("Dequantize", "q", "y")]


@pytest.mark.parametrize("zero_point", [0, 3, -(2**31)])
def test_codes_of_32_bits_are_exact(zero_point: int) -> None:
    code = FORMATS["int32"]
    qparams = QParams(np.array(1e-6, np.float32), np.array(zero_point, np.int32), code)
    x = np.array([16.777217, 2147.4836, -2147.4837, 1e9, -1e9, INF, 123.456789], np.float32)
    ours = fake_quantize(torch.from_numpy(x), torch.tensor(1e-6), torch.tensor(float(zero_point)), qmin=code.qmin, qmax=code.qmax)
    assert same_bits(ours.numpy(), deployed(x, qparams))


def test_nan_stays_and_infinities_saturate() -> None:
    x = torch.tensor([NAN, INF, -INF])
    ours = fake_quantize(x, torch.tensor(0.5), torch.tensor(1.0), qmin=-8, qmax=7).tolist()
    assert math.isnan(ours[0])
    assert ours[1:] == [3.0, -4.5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_narrow_floats_are_computed_in_float32(dtype: Any) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=SHAPE) * 3).to(dtype)
    scale, zero_point = torch.tensor(0.0371), torch.tensor(5.0)
    ours = fake_quantize(x, scale, zero_point, qmin=-128, qmax=127)
    assert ours.dtype == dtype
    assert torch.equal(ours, fake_quantize(x.float(), scale, zero_point, qmin=-128, qmax=127).to(dtype))


def test_autocast_changes_nothing() -> None:
    module = FakeQuantize(some_qparams(ASYMMETRIC), ASYMMETRIC, 3, learning="scale and zero point")
    x = torch.from_numpy(values())
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert torch.equal(y, module(x))
    y.nan_to_num().sum().backward()
    assert module.scale.grad.dtype == torch.float32


ASYMMETRIC = Spec(FORMATS["int8"], False, PerChannel(1))


def half_even(value: Fraction) -> int:
    floor = math.floor(value)
    rest = value - floor
    return floor + int(rest > Fraction(1, 2) or (rest == Fraction(1, 2) and floor % 2 == 1))


def slow_gradients(x: Array, grad: Array, scale: Array, zero_point: Array, codes: Codes) -> tuple[Array, Array, Array]:
    """The papers' formulas, element by element, in fractions; scale and zero point broadcast against x."""
    of_x, of_scale, of_zero = np.zeros(x.shape), np.zeros(scale.shape), np.zeros(scale.shape)
    factor = 1 / math.sqrt(x.size / scale.size * codes.qmax)
    for index in np.ndindex(x.shape):
        place = tuple(0 if n == 1 else i for i, n in zip(index[x.ndim - scale.ndim :], scale.shape, strict=True))
        step, zero = Fraction(float(scale[place])), round(float(zero_point[place]))
        ratio = Fraction(float(x[index])) / step
        code = half_even(ratio) + zero
        if codes.qmin <= code <= codes.qmax:
            of_x[index] = grad[index]
            of_scale[place] += grad[index] * float(half_even(ratio) - ratio) * factor
        else:
            of_scale[place] += grad[index] * float((codes.qmin if code < codes.qmin else codes.qmax) - zero) * factor
            of_zero[place] -= grad[index] * float(step) * factor
    return of_x, of_scale, of_zero


@pytest.mark.parametrize(
    "shape",
    [(), (11,), (4, 1), (3, 1, 1), (1, 4, 1), (3, 1, 11), (1, 1, 1)],
    ids=["of all", "of the last axis", "of the middle axis", "of the first axis", "of the middle axis of three", "apart", "ones"],
)
@pytest.mark.parametrize("codes", [Codes(-8, 7), Codes(0, 255), Codes(-127, 127)], ids=str)
def test_gradients_are_those_of_the_papers(shape: tuple[int, ...], codes: Codes) -> None:
    draw = np.random.default_rng(3)
    x, grad = (draw.normal(size=SHAPE).astype(np.float32) * scale for scale in (4, 1))
    scale = np.asarray(draw.uniform(0.02, 0.5, shape), np.float32)
    zero_point = np.asarray(draw.integers(codes.qmin, codes.qmax, shape) + 0.25, np.float32)
    leaves = [torch.from_numpy(array).requires_grad_() for array in (x, scale, zero_point)]
    fake_quantize(*leaves, qmin=codes.qmin, qmax=codes.qmax).backward(torch.from_numpy(grad))
    for leaf, expected in zip(leaves, slow_gradients(x, grad, scale, zero_point, codes), strict=True):
        np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_gradient_of_scale_is_the_slope_where_all_is_clipped() -> None:
    x = torch.tensor([30.0, -40.0, 55.0], dtype=torch.float64)
    scale, zero_point = torch.tensor(0.7, dtype=torch.float64, requires_grad=True), torch.tensor(2.0, dtype=torch.float64)

    def total(step: Tensor) -> Tensor:
        return fake_quantize(x, step, zero_point, qmin=-8, qmax=7).sum()

    total(scale).backward()
    slope = (total(scale.detach() + 1e-6) - total(scale.detach() - 1e-6)) / 2e-6
    assert scale.grad.dtype == torch.float64
    assert float(scale.grad) == pytest.approx(float(slope) / math.sqrt(3 * 7), rel=1e-6)


@pytest.mark.parametrize("learns", list(itertools.product((True, False), repeat=3)), ids=str)
def test_only_the_gradients_that_are_asked_for_are_computed(learns: tuple[bool, bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = dispatch.gradients

    def seen(*args: Any, codes: Codes, wanted: Wanted) -> Any:
        asked.append(wanted)
        return real(*args, codes=codes, wanted=wanted)

    monkeypatch.setattr(dispatch, "gradients", seen)
    leaves = [torch.full((4,), value).requires_grad_(learn) for value, learn in zip((0.3, 0.5, 0.0), learns, strict=True)]
    y = fake_quantize(*leaves, qmin=-8, qmax=7)
    assert y.requires_grad == any(learns)
    if any(learns):
        y.sum().backward()
        (wanted,) = asked
        assert (wanted.x, wanted.scale is not None, wanted.zero_point is not None) == learns
    assert tuple(leaf.grad is not None for leaf in leaves) == learns


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 3)], ids=str)
def test_tensors_without_elements_pass(shape: tuple[int, ...]) -> None:
    x, scale = torch.zeros(shape, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    fake_quantize(x, scale, torch.tensor(0.0), qmin=-8, qmax=7).sum().backward()
    assert float(scale.grad) == 0.0
    assert x.grad.shape == shape


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4,), r"scale: found shape \(4,\)"), ((1, 1, 1, 1), "broadcasts against"), ((2, 1, 1), "broadcasts against")],
    ids=["another length", "more axes", "another first axis"],
)
def test_scale_that_does_not_fit_is_an_error(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        fake_quantize(torch.zeros(SHAPE), torch.ones(shape), torch.zeros(()), qmin=-8, qmax=7)


def test_scale_on_another_device_is_an_error() -> None:
    with pytest.raises(RecipeError, match="scale: found it on meta, expected cpu"):
        fake_quantize(torch.zeros(3), torch.ones((), device="meta"), torch.zeros(()), qmin=-8, qmax=7)


@pytest.mark.parametrize("learning", LEARNINGS[1:])
@every_spec
def test_forward_equals_deployment_at_every_step_of_a_wild_training(spec: Spec, learning: Learning) -> None:
    module = FakeQuantize(some_qparams(spec), spec, len(SHAPE), learning=learning)
    optimizer = torch.optim.SGD(module.parameters(), lr=3.0)
    draw = np.random.default_rng(5)
    for step in range(6):
        x = draw.normal(size=SHAPE).astype(np.float32) * 5
        y = module(torch.from_numpy(x))
        qparams = module.qparams()
        assert same_bits(y.detach().numpy(), deployed(x, qparams))
        assert qparams.scale.min() >= SMALLEST_SCALE
        optimizer.zero_grad()
        y.backward(torch.from_numpy(draw.normal(size=SHAPE).astype(np.float32)))
        optimizer.step()
        if step == 3:
            module.scale.data.neg_()  # which a step that is too long does
    fixed = FakeQuantize(qparams, spec, len(SHAPE), learning="fixed")
    assert same_bits(fixed(torch.from_numpy(x)).numpy(), y.detach().numpy())


def test_scale_below_its_floor_finds_back() -> None:
    module = FakeQuantize(some_qparams(PLAIN), PLAIN, 1, learning="scale")
    module.scale.data.fill_(-0.5)
    module(torch.tensor([3.0])).backward(torch.tensor([-1.0]))
    assert module.scale.grad < 0.0


def test_scale_keeps_a_share_of_what_it_began_with() -> None:
    begun = some_qparams(PLAIN)
    module = FakeQuantize(begun, PLAIN, 1, learning="scale")
    module.scale.data.fill_(-0.5)
    assert module.qparams().scale == begun.scale * np.float32(LEAST_SHARE)


PLAIN = Spec(FORMATS["int8"], True)


def test_zero_point_is_rounded_and_stays_within_the_codes() -> None:
    module = FakeQuantize(some_qparams(ASYMMETRIC), ASYMMETRIC, 3, learning="scale and zero point")
    module.zero_point.data.copy_(torch.tensor([2.5, -3.7, 500.0, -1e9]).view(1, 4, 1))
    assert module.qparams().zero_point.tolist() == [2, -4, 127, -128]
    assert module.numbers()[1].flatten().tolist() == [2.0, -4.0, 127.0, -128.0]


@pytest.mark.parametrize(
    ("learning", "symmetric", "expected"),
    [
        ("fixed", False, []),
        ("scale", False, ["scale"]),
        ("scale and zero point", False, ["scale", "zero_point"]),
        ("scale and zero point", True, ["scale"]),
    ],
)
def test_parameters_are_what_learns(learning: Learning, symmetric: bool, expected: list[str]) -> None:
    spec = Spec(FORMATS["uint8"], symmetric)
    module = FakeQuantize(some_qparams(spec), spec, 3, learning=learning)
    assert [name for name, _ in module.named_parameters()] == expected
    assert sorted(module.state_dict()) == ["_extra_state", "least", "scale", "zero_point"]


def test_training_that_diverged_is_an_error() -> None:
    module = FakeQuantize(some_qparams(ASYMMETRIC), ASYMMETRIC, 3, learning="scale and zero point")
    module.zero_point.data[0, 0, 0] = NAN
    with pytest.raises(RecipeError, match="zero point: found NaN"):
        module.qparams()
    module.scale.data[0, 0, 0] = INF
    module.zero_point.data.zero_()
    with pytest.raises(RecipeError, match="scale: found inf"):
        module.qparams()


@every_spec
def test_copies_and_state_carry_over(spec: Spec) -> None:
    module = FakeQuantize(some_qparams(spec), spec, len(SHAPE), learning="scale")
    other = FakeQuantize(some_qparams(spec, seed=9), spec, len(SHAPE), learning="fixed")
    other.load_state_dict(module.state_dict())
    x = torch.from_numpy(values())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), other, copy.deepcopy(module).half().double().to("cpu")):
        assert same_bits(twin(x).detach().numpy(), module(x).detach().numpy())
        assert twin.scale.dtype == torch.float32
        assert repr(twin.spec) == repr(spec)


def test_fixed_module_takes_what_another_learned_as_it_would_be_deployed() -> None:
    learned = FakeQuantize(some_qparams(ASYMMETRIC), ASYMMETRIC, 3, learning="scale and zero point")
    learned.scale.data[0, 1, 0] = -0.5
    learned.zero_point.data[0, :3, 0] = torch.tensor([2.5, 1000.0, -7.7])
    fixed = FakeQuantize(some_qparams(ASYMMETRIC, seed=9), ASYMMETRIC, 3, learning="fixed")
    for twin in (fixed, pickle.loads(pickle.dumps(fixed)), copy.deepcopy(fixed)):
        twin.load_state_dict(learned.state_dict())
        x = torch.from_numpy(values())
        assert same_bits(twin(x).numpy(), learned(x).detach().numpy())
        assert same_bits(twin(x).numpy(), deployed(x.numpy(), twin.qparams()))


def test_learning_leaves_the_plan_alone() -> None:
    qparams = some_qparams(PLAIN)
    module = FakeQuantize(qparams, PLAIN, 1, learning="scale")
    before = float(qparams.scale)
    module.scale.data.add_(1.0)
    assert float(qparams.scale) == before


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [
        (PerTensor(), "FakeQuantize(int8 narrow per tensor, learning scale)"),
        (PerChannel(1), "FakeQuantize(int8 narrow per channel of axis 1, learning scale)"),
        (PerBlock(-1, 4), "FakeQuantize(int8 narrow per block of 4 along axis -1, learning scale)"),
    ],
    ids=repr,
)
def test_repr_tells_what_it_does(granularity: Granularity, expected: str) -> None:
    spec = Spec(FORMATS["int8"], True, granularity, narrow=True)
    assert repr(FakeQuantize(some_qparams(spec), spec, 3, learning="scale")) == expected


def test_numbers_of_another_format_are_an_error() -> None:
    with pytest.raises(RecipeError, match=r"scale and zero point: .*uint8"):
        FakeQuantize(some_qparams(PLAIN), Spec(FORMATS["uint8"], True), 1, learning="fixed")


def test_axis_that_the_tensor_lacks_is_an_error() -> None:
    with pytest.raises(RecipeError, match="axis: found 1"):
        FakeQuantize(some_qparams(ASYMMETRIC), ASYMMETRIC, 1, learning="fixed")


@on_gpu
@every_spec
def test_module_on_a_gpu_equals_deployment(spec: Spec) -> None:
    x = values()
    module = FakeQuantize(some_qparams(spec), spec, len(SHAPE), learning="scale and zero point").to("cuda")
    y = module(torch.from_numpy(x).to("cuda"))
    assert same_bits(y.detach().cpu().numpy(), deployed(x, module.qparams()))
    y.nan_to_num().sum().backward()
    assert module.scale.grad.shape == module.scale.shape


def test_numbers_for_other_codes_are_not_loaded() -> None:
    four = Spec(FORMATS["int4"], symmetric=True)
    saved = FakeQuantize(some_qparams(four), four, 1, learning="fixed").state_dict()
    eight = Spec(FORMATS["int8"], symmetric=True)
    with pytest.raises(RecipeError, match="state dict: found numbers for codes from -8 to 7, expected -128 to 127"):
        FakeQuantize(some_qparams(eight), eight, 1, learning="fixed").load_state_dict(saved)
