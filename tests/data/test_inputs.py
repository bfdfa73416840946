from __future__ import annotations

import numpy as np
import pytest

from zeropoint.data.inputs import InputInfo, batch_axis

Shape = tuple[int | None, ...]


@pytest.mark.parametrize(
    ("shapes", "names", "size"),
    [
        pytest.param({"x": (None, 3, 8, 8)}, {"x"}, None, id="dynamic"),
        pytest.param({"x": (1, 3, 8, 8)}, {"x"}, 1, id="fixed to one"),
        pytest.param({"x": (4, 3, 8, 8)}, {"x"}, 4, id="fixed to four"),
        pytest.param({"ids": (None, None), "mask": (None, None)}, {"ids", "mask"}, None, id="two dynamic"),
        pytest.param({"x": (4, 10), "y": (4,)}, {"x", "y"}, 4, id="a vector with one number for each sample"),
        pytest.param({"x": (None, 3, 8, 8), "threshold": ()}, {"x"}, 1, id="a scalar allows one sample at a time"),
        pytest.param({"x": (1, 5, 8), "h": (2, 1, 16)}, {"x"}, 1, id="a recurrent state has no batch in front"),
        pytest.param({"x": (10,)}, set(), 1, id="a static vector has no batch axis"),
        pytest.param({"x": (None,)}, {"x"}, None, id="a dynamic vector has one"),
        pytest.param({"x": ()}, set(), 1, id="scalar only"),
    ],
)
def test_batch_axis(shapes: dict[str, Shape], names: set[str], size: int | None) -> None:
    found = batch_axis([InputInfo(name, np.dtype(np.float32), shape) for name, shape in shapes.items()])
    assert (found.names, found.size) == (names, size)
