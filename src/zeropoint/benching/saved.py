"""Read a benchmark that was saved."""

from __future__ import annotations

from pathlib import Path

from zeropoint.benching.bench import VERSION, Bench
from zeropoint.errors import DataError


def load_bench(path: str | Path) -> Bench:
    """Read what `Bench.save` wrote.

    Raises:
        DataError: there is no such file, or it holds no benchmark of this version.
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
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the text"
        raise DataError(f"{where}: {field}: {first['msg']}, found {str(first['input'])[:80]!r}; expected what bench saved") from None
    if bench.version != VERSION:
        raise DataError(f"{where}: version: found {bench.version}, expected {VERSION}; measure it again with this zeropoint")
    return bench
