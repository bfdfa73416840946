from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from zeropoint.torch.distillation import feature_distance, output_distance, yardstick  # noqa: E402
from zeropoint.torch.learning import is_decayed, weight_unit  # noqa: E402
from zeropoint.torch.schedules import cosine  # noqa: E402
from zeropoint.torch.training_options import Distillation  # noqa: E402

DRAW = np.random.default_rng(0)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    grown = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(grown / grown.sum(axis, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(("shape", "axis"), [((5, 7), -1), ((2, 3, 7), -1), ((2, 7, 3, 3), 1)], ids=["classes", "tokens", "pixels"])
def test_logits_are_compared_by_divergence(shape: tuple[int, ...], axis: int, temperature: float) -> None:
    student, teacher = DRAW.normal(size=(2, *shape))
    q, p = softmax(student / temperature, axis), softmax(teacher / temperature, axis)
    expected = (p * np.log(p / q)).sum(axis).mean() * temperature**2
    tensors = [torch.from_numpy(x).float() for x in (student, teacher)]
    by = yardstick(tensors[1:], {}, Distillation(measure="logits"))
    found = output_distance(tensors[:1], tensors[1:], by, temperature=temperature)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_probabilities_are_compared_as_the_logits_behind_them() -> None:
    logits = [torch.from_numpy(x).float() for x in DRAW.normal(size=(2, 5, 7))]
    found = [logits, [x.softmax(1) for x in logits]]
    distances = [
        float(output_distance(pair[:1], pair[1:], yardstick(pair[1:], {}, Distillation(measure=measure)), temperature=2.0))  # type: ignore[arg-type]
        for pair, measure in zip(found, ("logits", "probabilities"), strict=True)
    ]
    assert distances[0] == pytest.approx(distances[1], rel=1e-4)


def test_values_and_features_are_compared_over_the_mean_square_of_the_first_batch() -> None:
    first, student, teacher = (torch.from_numpy(x).float() for x in DRAW.normal(size=(3, 4, 6)) * 30)
    by = yardstick([first], {"inside": first, "dead": torch.zeros(3)}, Distillation(measure="values"))
    expected = float(((student - teacher) ** 2).mean() / (first**2).mean())
    assert float(output_distance([student], [teacher], by, temperature=1.0)) == pytest.approx(expected, rel=1e-5)
    pairs = {"inside": student, "dead": torch.ones(3)}, {"inside": teacher, "dead": torch.zeros(3)}
    assert float(feature_distance(*pairs, by)) == pytest.approx((expected + 1) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("output", "measure"),
    [
        (torch.randn(4, 3), "logits"),
        (torch.rand(4, 3), "logits"),
        (torch.randn(4, 3).softmax(1), "probabilities"),
        (torch.randn(4, 1), "values"),
        (torch.randn(4, 3, 5), "values"),
        (torch.randn(4), "values"),
        (torch.tensor([1, 2]), "none"),
    ],
    ids=["classes", "positive", "probabilities", "one number", "tokens", "scalars", "integers"],
)
def test_measure_is_chosen_by_the_output(output: Any, measure: str) -> None:
    assert yardstick([output], {}, Distillation()).measures == (measure,)


@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_schedule_is_what_pytorch_makes_of_the_same_words(warmup: float) -> None:
    total, optimizer = 20, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rising = round(warmup * total)
    schedules, shares = (
        torch.optim.lr_scheduler,
        (
            lambda step: (step + 1) / max(1, rising),
            lambda step: 0.5 * (1 + np.cos(np.pi * step / max(1, total - rising))),
        ),
    )
    if 0 < rising < total:
        parts = [schedules.LambdaLR(optimizer, share) for share in shares]
        schedule = schedules.SequentialLR(optimizer, parts, milestones=[rising])
    else:
        schedule = schedules.LambdaLR(optimizer, shares[rising == 0])
    for step in range(total):
        assert cosine(step, total, warmup=warmup) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert cosine(total, total, warmup=0.0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("transposed", [False, True], ids=["output first", "output second"])
def test_unit_is_the_size_of_a_channel(transposed: bool) -> None:
    sizes = np.array([2.0**-4, 0.5, 8.0, 0.0])
    weight = torch.from_numpy(DRAW.choice([-1.0, 1.0], size=(4, 6, 3)) * sizes[:, None, None] * 1.3).float()
    unit = weight_unit(weight.transpose(0, 1) if transposed else weight).broadcast_to((6, 4, 3) if transposed else (4, 6, 3))
    found = (unit.transpose(0, 1) if transposed else unit)[:, 0, 0]
    assert found[:3].tolist() == sizes[:3].tolist()
    assert 0 < float(found[3]) < 2.0**-7  # a dead channel moves too, by little
    assert torch.equal(weight_unit(torch.zeros(3, 3)), torch.tensor(2.0**-5))


@pytest.mark.parametrize(
    ("shape", "decays"), [((4, 3, 3, 3), True), ((4, 1, 3, 3), True), ((5,), False), ((1, 5, 1, 1), False), ((), False)], ids=str
)
def test_decay_is_of_weights_alone(shape: tuple[int, ...], decays: bool) -> None:
    assert is_decayed(torch.zeros(shape)) is decays
