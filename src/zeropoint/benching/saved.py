"""Read a benchmark that was saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from zeropoint.benching.bench import VERSION, Bench
from zeropoint.errors import DataError


def load_bench(path: str | Path) -> Bench:
    """Read what `Bench.save` wrote.

    Raises:
        DataError: there is no such file, or it holds no benchmark of this version, or a figure that none can have.
    """
    from pydantic import TypeAdapter, ValidationError

    where = f"benchmark {path}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: cannot be read ({error}); expected the JSON file that bench saved") from None
    try:
        bench = TypeAdapter(Bench).validate_json(text, strict=True)
    except ValidationError as error:
        _check_version(_version(text), where)  # what another version has otherwise is no mistake in the file
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the text"
        raise DataError(f"{where}: {field}: {first['msg']}, found {str(first['input'])[:80]!r}; expected what bench saved") from None
    _check_version(bench.version, where)
    for field, value in _divisors(bench):
        if value <= 0:
            raise DataError(f"{where}: {field}: found {value}, expected more than 0; measure it again")
    return bench


def _version(text: str) -> object:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return VERSION
    return document.get("version", VERSION) if isinstance(document, dict) else VERSION


def _check_version(found: object, where: str) -> None:
    if isinstance(found, int) and found != VERSION:
        raise DataError(f"{where}: version: found {found}, expected {VERSION}; measure it again with this zeropoint")


def _divisors(bench: Bench) -> Iterator[tuple[str, float]]:
    for number, timing in enumerate(bench.timings):
        yield f"timings.{number}.median_ms", timing.median_ms
        if timing.ratio is not None:
            yield f"timings.{number}.ratio.value", timing.ratio.value
