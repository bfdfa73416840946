"""How near an output is to its reference, as figures."""

from __future__ import annotations

import math

from zeropoint.evaluate.fidelity import OutputFidelity
from zeropoint.report.figures import Bar, Figure

FULL_SCALE_DB = 60.0  # a bar of SQNR that is full: the error is a thousandth of the signal


def fidelity_figures(output: OutputFidelity, *, of: str, labels: tuple[str, str]) -> list[Figure]:
    """Return SQNR, agreement and accuracy, as far as they are known. of: what stands behind each name; labels: of before and after."""
    db = output.sqnr_db
    exact = db == math.inf
    told = f"median {output.sqnr_median_db:.1f} dB, worst {output.sqnr_worst_db:.1f} dB; cosine {output.cosine:.5f}"
    bars: tuple[Bar, ...] = (
        () if math.isnan(db) else (Bar(labels[1], f"of {FULL_SCALE_DB:.0f} dB", min(max(db / FULL_SCALE_DB, 0.0), 1.0)),)
    )
    comparison = "exact" if exact else f"{db:.1f} dB SQNR"
    figures = [Figure(label=f"Fidelity{of}", comparison=comparison, bars=bars, detail="" if exact else told)]
    if output.agreement is not None:
        bar = Bar(labels[1], f"{output.agreement:.2%}", output.agreement)
        figures.append(Figure(label=f"Same largest class{of}", comparison=f"{output.agreement:.1%}", bars=(bar,)))
    if output.accuracy is not None and output.float_accuracy is not None:
        before, after = output.float_accuracy, output.accuracy
        bars = (Bar(labels[0], f"{before:.2%}", before, "float"), Bar(labels[1], f"{after:.2%}", after))
        figures.append(Figure(label=f"Accuracy{of}", comparison=f"{100 * (after - before):+.2f} points", bars=bars))
    return figures
