"""Compare two networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zeropoint.comparison import Comparison, compare_networks, open_pair
from zeropoint.data import Preprocess, batches, fed, load_labels, load_preprocess, open_data, split
from zeropoint.errors import DataError, RecipeError
from zeropoint.graph.load import Source, input_infos
from zeropoint.progress import Progress, silent
from zeropoint.report.comparison import comparison_page
from zeropoint.report.page import check_report, write


def compare(  # noqa: PLR0913  (each option of the command line)
    a: Source,
    b: Source,
    *,
    data: object,
    samples: int = 128,
    layer_samples: int = 8,
    preprocess: Preprocess | str | Path | Sequence[str | Path] | None = None,
    labels: object = None,
    seed: int = 0,
    report: str | Path | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compare two ONNX networks on data: their outputs, layer by layer, and what they are made of.

    Either may be in float or quantized by any tool. Layers are paired by the names of their tensors, and by their places where these
    differ; what is in doubt is left out, with a note. `enters` is the layer that adds the most error by itself.

    a, b: each a path, bytes or a ModelProto; b is judged by a. data: a folder of images or arrays, .npy, .npz, "module:function", an array,
    a dict of arrays or an iterable of either; "random" for a trial. samples: how many of it the outputs are compared on, spread evenly, and
    layer_samples: how many of these the layers are. preprocess: for images, as `quantize` takes it. labels: "folder", "stem" or a file, for
    accuracy. seed: of random data. report: an HTML file to write all of it to, which needs no network.

    Raises:
        ModelError: a network cannot be read or run, or they are not fed alike.
        DataError: there is no data, or samples or labels cannot be read or do not fit.
        RecipeError: a number is less than 1, there is no such preprocessing, or a library for the report is not installed.
        OutputError: the report cannot be written.

    Example:
        >>> import zeropoint as zp
        >>> from zeropoint.demo import load_digits
        >>> digits = load_digits()
        >>> found = zp.compare(digits.model, digits.model, data=digits.test, samples=8)
        >>> found.fidelity[0].sqnr_db, found.enters
        (inf, None)
    """
    for name, number in (("samples", samples), ("layer_samples", layer_samples)):
        if number < 1:
            raise RecipeError(f"{name}: found {number}, expected at least 1")
    if data is None:
        raise DataError("data: found none, expected samples of what the networks see in use; 'random' makes a trial on random numbers")
    if report is not None:
        check_report(report)
    pair, notes = open_pair(a, b)
    images = preprocess if isinstance(preprocess, Preprocess | None) else load_preprocess(preprocess)
    opened = open_data(data, input_infos(pair.models[0]), preprocess=images, limit=samples, seed=seed)
    chosen = split(opened, samples, 1)[0]
    batches(chosen, 1)  # says where they are too few for a batch of fixed size
    known = load_labels(labels, fed(chosen)) if labels is not None else None
    found = compare_networks(pair, chosen, labels=known, layer_samples=layer_samples, notes=notes, progress=progress)
    if report is not None:
        write(comparison_page(found), report)
    return found
