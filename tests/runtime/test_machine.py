from __future__ import annotations

import numpy as np
import pytest

from zeropoint.runtime.machine import one_blas_thread


def test_one_blas_thread_changes_no_product_and_lets_errors_through() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 300))
    G = rows.T @ rows
    expected = np.linalg.cholesky(G)
    with one_blas_thread():
        np.testing.assert_allclose(np.linalg.cholesky(G), expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="within"), one_blas_thread():
        raise ValueError("within")
    np.testing.assert_array_equal(np.linalg.cholesky(G), expected)
