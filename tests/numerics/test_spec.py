from __future__ import annotations

import pytest

from zeropoint.errors import RecipeError
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import PerBlock, PerChannel, Spec


@pytest.mark.parametrize(
    ("name", "narrow", "expected"),
    [
        pytest.param("int8", False, (-128, 127), id="int8"),
        pytest.param("int8", True, (-127, 127), id="narrow int8 mirrors around 0"),
        pytest.param("int4", True, (-7, 7), id="narrow int4 mirrors around 0"),
        pytest.param("uint8", True, (0, 255), id="unsigned formats have nothing to narrow"),
    ],
)
def test_usable_codes(name: str, narrow: bool, expected: tuple[int, int]) -> None:
    spec = Spec(FORMATS[name], symmetric=True, narrow=narrow)
    assert (spec.qmin, spec.qmax) == expected


def test_with_granularity_changes_nothing_else() -> None:
    spec = Spec(FORMATS["int8"], symmetric=True, narrow=True)
    assert spec.with_granularity(PerChannel(1)) == Spec(FORMATS["int8"], symmetric=True, granularity=PerChannel(1), narrow=True)


@pytest.mark.parametrize("size", [0, -2])
def test_block_without_elements_is_refused(size: int) -> None:
    with pytest.raises(RecipeError, match=f"block size: found {size}, expected 1 or more"):
        PerBlock(0, size)
