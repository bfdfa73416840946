"""How large the steps of a training are, from its first to its last."""

from __future__ import annotations

import math


def cosine(step: int, total: int, *, warmup: float) -> float:
    """Return the share of the learning rate that `step`, counted from 0, of `total` steps takes.

    It rises in a line over the first `warmup` of them (a share), and falls to 0 as half a cosine (Loshchilov and Hutter, "SGDR", 2017).

    >>> [round(cosine(step, 10, warmup=0.2), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, total - rising))))
