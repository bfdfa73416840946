from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from zeropoint.autograd.kernels import counting, dispatch, plain  # noqa: E402
from zeropoint.autograd.observing import RowsObservation, TensorObservation, add_rows  # noqa: E402
from zeropoint.errors import DataError  # noqa: E402
from zeropoint.statistics.channel_sums import LIMBS, observe_rows, sums_of  # noqa: E402
from zeropoint.statistics.tensor import EMPTY, observe  # noqa: E402

Tensor = Any
DEVICES = ["cpu", "plain tally", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.int64]
NASTY = [0.0, -0.0, 1e-45, -1e-45, 1e-40, 2.0**-133, -(2.0**-133), 3.4e38, -3.4e38, 1e300, math.inf, -math.inf, math.nan]
PLACES: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "every other": lambda x: x[..., ::2],
    "odd start": lambda x: x.flatten()[3:],
    "transposed": lambda x: x.transpose(0, 2),
    "expanded": lambda x: x[:1].expand(4, *x.shape[1:]),
    "one element": lambda x: x[0, 0, 0, 0],
    "none": lambda x: x[:0],
}


class TallyOnHost(TensorObservation):
    """What runs on a GPU without kernels, where there is no GPU."""

    def __init__(self) -> None:
        super().__init__()
        self._tally = dispatch.no_tally("cpu")


def observation(device: str) -> TensorObservation:
    return TallyOnHost() if device == "plain tally" else TensorObservation(device)


def on(device: str) -> str:
    return "cuda" if device == "cuda" else "cpu"


def values(dtype: Any) -> Tensor:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(3, 5, 7, 12)) * np.exp(4 * draw.normal(size=(3, 5, 7, 12)))
    if dtype.is_floating_point:
        x.reshape(-1)[: 3 * len(NASTY)] = NASTY * 3
    return torch.from_numpy(np.clip(x, -100, 100) if not dtype.is_floating_point else x).to(dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_statistic_is_that_of_the_array(dtype: Any, place: str, device: str) -> None:
    x = PLACES[place](values(dtype))
    ours = observation(device)
    ours.add(x.to(on(device)))
    assert ours.statistic().equals(observe(x.double().numpy()))


@pytest.mark.parametrize("device", DEVICES)
def test_several_tensors_are_as_one(device: str) -> None:
    parts = [values(torch.float32), values(torch.float32).relu(), torch.full((33,), -0.0), torch.zeros(0), values(torch.float16)]
    ours = observation(device)
    for part in parts:
        ours.add(part.to(on(device)))
        ours.statistic()  # which must not change what follows
    assert ours.statistic().equals(observe(np.concatenate([part.double().numpy().ravel() for part in parts])))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [math.nan, -3.4e38, math.inf, -math.inf, 0.0, -0.0, 1e-45, -1e-30, 1e30, 6.0], ids=str)
def test_tensor_of_one_value(value: float, device: str) -> None:
    ours = observation(device)
    ours.add(torch.full((1000,), value, device=on(device)))
    statistic = ours.statistic()
    assert statistic.equals(observe(np.full(1000, value)))
    assert math.copysign(1.0, statistic.minimum) == math.copysign(1.0, observe(np.full(1000, value)).minimum)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rare", [-3.4e38, 1e-30, -1e-45, math.nan], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_two_sizes_far_from_each_other(share: float, rare: float, device: str) -> None:
    draw = np.random.default_rng(7)
    x = np.where(draw.uniform(size=70_001) < share, np.float32(rare) * draw.integers(1, 3, 70_001) / 2, draw.normal(size=70_001))
    x = x.astype(np.float32)
    ours = observation(device)
    ours.add(torch.from_numpy(x).to(on(device)))
    assert ours.statistic().equals(observe(x))


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_seen_is_empty(device: str) -> None:
    assert observation(device).statistic().equals(EMPTY)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_and_inference_mode_do_not_matter(device: str) -> None:
    with torch.inference_mode():
        ours = observation(device)
        ours.add(torch.ones(3, device=on(device)))
    ours.add(torch.ones(3, device=on(device), requires_grad=True) * 2)
    assert ours.statistic().equals(observe([1.0, 1.0, 1.0, 2.0, 2.0, 2.0]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64], ids=str)
def test_what_is_no_real_number_is_an_error(dtype: Any) -> None:
    with pytest.raises(DataError, match=f"found a tensor of {dtype}"):
        TensorObservation().add(torch.zeros(3, dtype=dtype))


def test_long_tensors_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "CHUNK", 7)
    ours, x = observation("plain tally"), values(torch.float32)
    ours.add(x)
    assert ours.statistic().equals(observe(x.numpy()))


@pytest.mark.parametrize(("a", "b"), list(itertools.pairwise([-math.inf, -3e38, -2.0, -1e-45, 0.0, 1e-45, 1.0, 3e38, math.inf])))
def test_ordered_ints_are_ordered_as_the_floats(a: float, b: float) -> None:
    low, high = plain.ordered(torch.tensor([a, b]).view(torch.int32)).tolist()
    assert low < high
    back = plain.ordered(plain.ordered(torch.tensor([a, b]).view(torch.int32))).view(torch.float32)
    assert back.tolist() == torch.tensor([a, b]).tolist()


@pytest.mark.parametrize("kib", [228, 164, 100, 96, 64])
def test_two_blocks_fit_on_a_processor(kib: int) -> None:
    octaves = counting.octaves(kib << 10)
    assert 0 < octaves <= counting.MOST_OCTAVES
    assert octaves % counting.OCTAVES_OF_BIN == 0
    assert 2 * (octaves * 1024 + counting.RESERVED_BYTES) <= kib << 10


ROWS = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32) * np.logspace(-40, 38, 7, dtype=np.float32)
ROWS[3, 2], ROWS[5, 1], ROWS[7, 0], ROWS[9] = np.nan, np.inf, -0.0, 0.0


@pytest.mark.parametrize("split", [1, 7, 50], ids=lambda size: f"{size} rows at a time")
def test_digits_of_rows_are_those_of_numpy(split: int) -> None:
    limbs, rows = torch.zeros(LIMBS, 7, dtype=torch.int64), 0
    for start in range(0, 50, split):
        rows += int(add_rows(torch.from_numpy(ROWS[start : start + split]), limbs))
    assert sums_of(rows, limbs.numpy()).equals(observe_rows(ROWS))


@pytest.mark.parametrize("device", ["cpu", DEVICES[-1]])
def test_sums_of_rows_are_those_of_arrays(device: str) -> None:
    observation = RowsObservation(7, device)
    for start in range(0, 50, 20):
        observation.add(torch.from_numpy(ROWS[start : start + 20]).to(device))
    assert observation.sums().equals(observe_rows(ROWS))
