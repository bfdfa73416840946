from __future__ import annotations

import numpy as np
import pytest

from zeropoint.graph.channels import Channels, evened, reshaped


@pytest.mark.parametrize(
    ("labels", "before", "after", "expected"),
    [
        pytest.param((1, 16, 1, 1), (2, 16, 1, 1), (2, 16), (1, 16), id="Flatten of one place"),
        pytest.param((1, 3, 1, 1), (2, 3, 4, 5), (2, 60), (1, 60), id="Flatten of several places"),
        pytest.param((1, 1, 32), (2, 6, 32), (2, 6, 4, 8), (1, 1, 4, 8), id="into heads"),
        pytest.param((1, 1, 4, 8), (2, 6, 4, 8), (2, 6, 32), (1, 1, 32), id="out of heads"),
        pytest.param((1, 1, 4, 1), (2, 6, 4, 8), (2, 6, 32), (1, 1, 32), id="one for each head"),
        pytest.param((1, 1, 32), (2, 6, 32), (12, 32), (1, 32), id="tokens of all samples"),
        pytest.param((1, 16, 1, 1), (1, 16, 4, 4), (16, 16), (16, 1), id="a sample less"),
        pytest.param((1, 4, 1), (1, 4, 9), (4, 3, 1, 3), (4, 1, 1, 1), id="places apart"),
        pytest.param((6, 1), (6, 4), (4, 6), (4, 6), id="across channels"),
        pytest.param((1,), (1,), (), (), id="a number"),
        pytest.param((), (), (1, 1), (1, 1), id="of a number"),
    ],
)
def test_labels_follow_their_elements_into_another_shape(
    labels: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    given = np.arange(np.prod(labels, dtype=int)).reshape(labels)
    found = reshaped(given, before, after)
    assert found.shape == expected
    np.testing.assert_array_equal(np.broadcast_to(found, after), np.broadcast_to(given, before).reshape(after))


def test_labels_are_even_where_they_do_not_vary() -> None:
    np.testing.assert_array_equal(evened(np.array([[1, 2], [1, 2]])), [[1, 2]])
    np.testing.assert_array_equal(evened(np.array([[1, 1], [2, 2]])), [[1], [2]])
    np.testing.assert_array_equal(evened(np.array([[1, 1], [1, 1]])), [[1]])


def test_labels_are_united_with_the_least_of_them() -> None:
    channels = Channels({})
    a, b, c = (channels.new((2,)) for _ in range(3))  # 1 2, 3 4, 5 6
    channels.unite(c, b)
    channels.unite(b[::-1], a)
    assert [channels.root(label) for label in range(7)] == [0, 1, 2, 2, 1, 2, 1]
    channels.unite(c[:1], np.zeros((), np.int64))
    assert [channels.root(label) for label in range(7)] == [0, 1, 0, 0, 1, 0, 1]


def test_labels_become_even_along_axes_by_uniting_them() -> None:
    channels = Channels({})
    labels = channels.even(channels.new((2, 3)), [1])
    assert labels.tolist() == [[1], [4]]
    assert [channels.root(label) for label in range(7)] == [0, 1, 1, 1, 4, 4, 4]
