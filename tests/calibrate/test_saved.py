from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.calibrate.subjects import ROWS, source

from zeropoint.calibrate.saved import FORMAT, VERSION, Part, Saved, load_statistics, save_statistics, to_bytes
from zeropoint.errors import DataError, OutputError
from zeropoint.graph.facts import Fact
from zeropoint.graph.taps import Taps
from zeropoint.statistics.channel_sums import observe_rows
from zeropoint.statistics.network import NOTHING_SEEN, Statistics
from zeropoint.statistics.tensor import EMPTY, observe

TAPS = Taps(("x", "y", "name with / and ü"), (("x", 1), ("x", -1)))
SEEN = Statistics(
    {"x": observe(ROWS), "y": observe([np.nan, np.inf, -np.inf, 0.1]), "name with / and ü": observe([-0.0, 1e-45, 3.4e38])},
    {("x", 1): observe_rows(ROWS), ("x", -1): observe_rows(-ROWS[:3] * 1e-30)},
)
FACTS = {"x": Fact(np.dtype(np.float32), (1, 16)), "n": Fact(np.dtype(np.int64), ()), "b": Fact(np.dtype(bool), (0, 3))}
SAVED: dict[str, Saved] = {
    "complete": Saved(source(), FACTS, (Part(TAPS, frozenset(range(4)), SEEN),)),
    "nothing yet": Saved(source(), {}, ()),
    "nothing seen": Saved(source(), FACTS, (Part(TAPS),)),
    "empty statistics": Saved(source(), FACTS, (Part(Taps(("x",)), frozenset({3}), Statistics({"x": EMPTY}, {})),)),
    "two parts": Saved(
        source(blocks=40),
        FACTS,
        (
            Part(Taps(("x",)), frozenset({0, 1, 2, 7, 9, 10, 39}), Statistics({"x": observe(ROWS)}, {})),
            Part(Taps(("y",), (("y", 1),)), frozenset(), NOTHING_SEEN),
        ),
    ),
}
every_saved = pytest.mark.parametrize("saved", SAVED.values(), ids=SAVED)
WHOLE = SAVED["complete"]


def assert_same(found: Saved, expected: Saved) -> None:
    assert (found.source, found.facts) == (expected.source, expected.facts)
    assert [(part.taps, part.done) for part in found.parts] == [(part.taps, part.done) for part in expected.parts]
    for ours, theirs in zip(found.parts, expected.parts, strict=True):
        assert ours.statistics.tensors.keys() == theirs.statistics.tensors.keys()
        assert ours.statistics.channels.keys() == theirs.statistics.channels.keys()
        assert all(one.equals(theirs.statistics.tensors[name]) for name, one in ours.statistics.tensors.items())
        assert all(one.equals(theirs.statistics.channels[key]) for key, one in ours.statistics.channels.items())


# --- there and back --------------------------------------------------------------------------------------------------------


@every_saved
@pytest.mark.parametrize("as_path", [str, Path], ids=["str", "path"])
def test_what_was_saved_is_read_again(saved: Saved, as_path: Callable[[Path], str | Path], tmp_path: Path) -> None:
    save_statistics(saved, tmp_path / "some.stats")
    assert [path.name for path in tmp_path.iterdir()] == ["some.stats"]
    assert_same(load_statistics(as_path(tmp_path / "some.stats")), saved)


@every_saved
def test_what_was_read_is_written_to_the_same_bytes(saved: Saved, tmp_path: Path) -> None:
    save_statistics(saved, tmp_path / "a")
    save_statistics(load_statistics(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == to_bytes(saved)


def test_neither_time_nor_order_shows_in_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    first = to_bytes(WHOLE)
    [part] = WHOLE.parts
    backwards = Statistics(dict(reversed([*SEEN.tensors.items()])), dict(reversed([*SEEN.channels.items()])))
    facts = dict(reversed(FACTS.items()))
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert to_bytes(Saved(WHOLE.source, facts, (replace(part, statistics=backwards),))) == first


def test_what_is_read_is_frozen(tmp_path: Path) -> None:
    save_statistics(WHOLE, tmp_path / "a")
    [part] = load_statistics(tmp_path / "a").parts
    for statistic in part.statistics.tensors.values():
        assert not statistic.buckets.flags.writeable
        assert not statistic.counts.flags.writeable
    assert not any(sums.limbs.flags.writeable for sums in part.statistics.channels.values())


def test_what_is_read_may_be_grown() -> None:
    part = Part(Taps(("x",)), frozenset({1}), Statistics({"x": observe([1.0])}, {}))
    grown = part.grown([2, 3], Statistics({"x": observe([2.0])}, {}))
    assert (grown.done, grown.taps) == (frozenset({1, 2, 3}), part.taps)
    assert grown.statistics.tensors["x"].equals(observe([1.0, 2.0]))
    assert part.done == frozenset({1})


def test_a_part_knows_what_of_some_taps_it_has_seen() -> None:
    only = Part(TAPS, frozenset({1}), SEEN).only(Taps(("y",), (("x", -1),)))
    assert (only.done, list(only.statistics.tensors), list(only.statistics.channels)) == (frozenset({1}), ["y"], [("x", -1)])
    assert Part(TAPS).only(Taps(("y",))).statistics.tensors == {}


def test_parts_are_joined_as_far_as_all_have_come() -> None:
    parts = (Part(Taps(("y",)), frozenset({0, 1, 2})), Part(Taps(("a",), (("y", 1), ("a", 1))), frozenset({1, 2, 3})))
    whole = Saved(source(), {}, parts).whole
    assert (whole.taps, whole.done) == (Taps(("a", "y"), (("a", 1), ("y", 1))), frozenset({1, 2}))


# --- files that will not do ------------------------------------------------------------------------------------------------


def changed(**header: Any) -> bytes:
    """The file, with other entries in its header."""
    with np.load(io.BytesIO(to_bytes(WHOLE))) as archive:
        arrays = dict(archive)
    told = {**json.loads(arrays["header"].tobytes()), **header}
    return archived({**arrays, "header": np.frombuffer(json.dumps(told).encode(), np.uint8)})


def archived(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def with_array(name: str, array: Any) -> bytes:
    with np.load(io.BytesIO(to_bytes(WHOLE))) as archive:
        return archived({**dict(archive), name: array})


def without(name: str) -> bytes:
    with np.load(io.BytesIO(to_bytes(WHOLE))) as archive:
        return archived({key: array for key, array in dict(archive).items() if key != name})


def flipped(at: float) -> bytes:
    """The file with a bit the other way round."""
    content = bytearray(to_bytes(WHOLE))
    content[int(at * len(content))] ^= 1
    return bytes(content)


def other_archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return file.getvalue()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/zeropoint-was-unpickled"),))


WHOLE_BYTES = to_bytes(WHOLE)
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello, world",
    "JSON": b'{"format": "zeropoint statistics"}',
    "pickled": pickle.dumps(Bomb()),
    "pickled within": with_array("counts", np.array([Bomb()], object)),
    "an array": npy(ROWS),
    "another archive of arrays": archived({"x": ROWS}),
    "another archive": other_archive(),
    **{f"cut off at {share:.0%}": WHOLE_BYTES[: int(share * len(WHOLE_BYTES))] for share in (0.01, 0.3, 0.6, 0.9, 0.999)},
    "a byte short": WHOLE_BYTES[:-1],
    "a bit of the counts flipped": flipped(0.5),
    "another format": changed(format="another"),
    "a later version": changed(version=VERSION + 1),
    "no parts": changed(parts=None),
    "no source": changed(source=None),
    "a source with more": changed(source={"color": "red"}),
    "facts of no type": changed(facts={"x": ["no type", [1]]}),
    "facts that are none": changed(facts={"x": 3}),
    "parts that are none": changed(parts=[3]),
    "a header that is a list": with_array("header", np.frombuffer(b"[]", np.uint8)),
    "a header that is no JSON": with_array("header", np.frombuffer(b"{", np.uint8)),
    "a header that is no text": with_array("header", np.frombuffer(b"\xff\xfe", np.uint8)),
    "no header": without("header"),
    "no limbs": without("limbs"),
    "counts too short": with_array("counts", np.zeros(3, np.int64)),
    "counts of another type": with_array("counts", np.zeros(3, np.float64)),
    "buckets too long": with_array("buckets", np.zeros(10_000, np.uint16)),
    "limbs of another width": with_array("limbs", np.zeros((32, 5), np.int64)),
    "limbs of one axis": with_array("limbs", np.zeros(32, np.int64)),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_no_such_file_is_an_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.stats"
    path.write_bytes(content)
    expected = (
        rf"^statistics {re.escape(str(path))}: cannot be read \(.+\); expected a file that `zeropoint quantize --checkpoint` wrote, whole$"
    )
    with pytest.raises(DataError, match=expected):
        load_statistics(path)
    assert not Path("/tmp/zeropoint-was-unpickled").exists()


def test_what_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.stats: cannot be read \(No such file or directory\)"):
        load_statistics(tmp_path / "no.stats")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        load_statistics(tmp_path)


def test_the_header_says_what_the_file_is() -> None:
    with np.load(io.BytesIO(to_bytes(WHOLE)), allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
    assert (header["format"], header["version"]) == (FORMAT, VERSION)
    assert header["parts"][0]["done"] == [[0, 3]]


def test_it_cannot_be_written_everywhere(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/a\.stats: cannot be written"):
        save_statistics(WHOLE, tmp_path / "none" / "a.stats")


# --- use -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("saved", "model", "message"),
    [
        pytest.param(
            WHOLE,
            "another",
            r"^here: found those of a model with SHA-256 of the model, expected another; give that model",
            id="another model",
        ),
        pytest.param(
            SAVED["two parts"], "of the model", r"^here: found 0 of 40 batches in it, expected all; quantize with", id="a part to go"
        ),
        pytest.param(SAVED["nothing yet"], "of the model", r"^here: found 0 of 4 batches in it", id="nothing"),
        pytest.param(
            replace(WHOLE, parts=(replace(WHOLE.parts[0], done=frozenset({0, 2, 3})),)), "of the model", "found 3 of 4 batches", id="a gap"
        ),
    ],
)
def test_what_is_not_complete_or_of_another_model_decides_nothing(saved: Saved, model: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        saved.check_use(model, where="here")


def test_what_is_complete_may_be_used() -> None:
    WHOLE.check_use("of the model", where="here")
