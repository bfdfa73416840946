from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.parser import parse_model

from zeropoint.errors import ModelError, OutputError, ZeropointError
from zeropoint.graph import store
from zeropoint.graph.load import load
from zeropoint.graph.store import open_session, save, serialize, serialized_size, weight_bytes, write_text

Array = np.ndarray[Any, Any]
SIZE = 64
WEIGHT = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)  # above what onnx_ir keeps inside a model
X = np.random.default_rng(1).normal(size=(2, SIZE)).astype(np.float32)
OLD = b"what stood here before"
REMEDY = "nothing was changed there; see that its folder exists, may be written to and has room"


def network() -> onnx.ModelProto:
    model = parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17], metadata_props: ["a" : "1", "b" : "2", "c" : "3"]>
        net (float[N, {SIZE}] x) => (float[N, {SIZE}] y) <float two = {{2}}> {{ a = MatMul(x, w) y = Mul(a, two) }}"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    return model


def run(model: bytes | Path) -> Array:
    session = onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X})[0])


EXPECTED = run(network().SerializeToString())
Limit = Callable[[], None]


@pytest.fixture(params=["one file", "weights beside"])
def in_two_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the test with a model below protobuf's limit and with one above it."""
    if request.param == "weights beside":
        monkeypatch.setattr(store, "LARGEST_MESSAGE", WEIGHT.nbytes - 1)
    return request.param == "weights beside"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def accept(path: Path) -> None:
    pass


# --- in memory ------------------------------------------------------------------------------------------------------------


def test_serializing_gives_the_same_bytes_again() -> None:
    contents = {serialize(model) for model in (load(network()), load(network().SerializeToString()))}
    model = load(network())
    contents |= {serialize(model), serialize(model), serialize(load(serialize(model)))}
    assert len(contents) == 1
    np.testing.assert_array_equal(run(contents.pop()), EXPECTED)


def test_serializing_takes_weights_in_from_their_file(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    model = load(tmp_path / "net.onnx")
    assert serialized_size(model) > WEIGHT.nbytes
    content = serialize(model)
    (tmp_path / "net.bin").unlink()
    np.testing.assert_array_equal(run(content), EXPECTED)


def test_sizes() -> None:
    model = load(network())
    assert serialized_size(model) == len(serialize(model))
    assert weight_bytes(model) == WEIGHT.nbytes + 4


def test_a_session_opens_whatever_the_size(in_two_files: bool) -> None:
    session = open_session(load(network()), threads=1)
    np.testing.assert_array_equal(session.run({"x": X})["y"], EXPECTED)


@pytest.mark.usefixtures("in_two_files")
def test_a_session_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    open_session(load(network())).run({"x": X})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("single_run", [False, True], ids=["many runs", "single run"])
def test_a_session_has_weights_of_its_own_or_reads_them_once(single_run: bool) -> None:
    """What is done to the arrays afterwards is of no consequence to a session that lasts."""
    model = load(network())
    weight = WEIGHT.copy()
    model.graph.initializers["w"].const_value = ir.Tensor(weight, name="w")
    session = open_session(model, single_run=single_run)
    weight[:] = 0
    assert session.run({"x": X})["y"].any() != single_run


ODD = {
    "float16": np.arange(4000, dtype=np.float16),
    "int64": np.arange(1000, dtype=np.int64),
    "bool": np.arange(5000) % 3 == 0,
    "two axes, not contiguous": np.arange(6000, dtype=np.float32).reshape(60, 100).T,
    "unaligned": np.frombuffer(b"x" + np.arange(2000, dtype=np.float32).tobytes(), np.float32, 2000, 1),
    "no elements": np.zeros((0, 4000), np.float32),
}


@pytest.mark.parametrize("array", ODD.values(), ids=ODD)
def test_the_bytes_are_those_that_onnx_ir_writes(array: Array) -> None:
    model = load(network())
    model.graph.register_initializer(ir.Value(name="odd", const_value=ir.Tensor(array, name="odd", doc_string="a remark")))
    assert serialize(model) == ir.to_proto(model).SerializeToString(deterministic=True)
    assert serialized_size(model) == len(serialize(model))


# --- on disk --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Path, str], ids=["Path", "str"])
@pytest.mark.parametrize("old", [None, OLD], ids=["new", "in place of another"])
def test_saves(kind: Callable[[Path], Any], old: bytes | None, in_two_files: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    if old:
        path.write_bytes(old)
        (tmp_path / "net.onnx.data").write_bytes(old)
    model = load(network())
    before = serialize(model)
    save(model, kind(path), check=accept)
    np.testing.assert_array_equal(run(path), EXPECTED)
    np.testing.assert_array_equal(open_session(load(path)).run({"x": X})["y"], EXPECTED)
    if in_two_files:
        assert sorted(contents(tmp_path)) == ["net.onnx", "net.onnx.data"]
        tensors = {tensor.name: tensor for tensor in onnx.load(path, load_external_data=False).graph.initializer}
        assert {entry.key: entry.value for entry in tensors["w"].external_data}["location"] == "net.onnx.data"
        assert (tmp_path / "net.onnx.data").stat().st_size == WEIGHT.nbytes
    else:
        assert path.read_bytes() == before
    assert serialize(model) == before, "the model in memory stays as it is"


def test_saved_files_move_together(in_two_files: bool, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    save(load(network()), tmp_path / "a" / "net.onnx", check=accept)
    (tmp_path / "a").rename(tmp_path / "b")
    np.testing.assert_array_equal(run(tmp_path / "b" / "net.onnx"), EXPECTED)


@pytest.mark.usefixtures("in_two_files")
def test_saves_beside_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(load(network()), "net.onnx", check=accept)
    np.testing.assert_array_equal(run(tmp_path / "net.onnx"), EXPECTED)


@pytest.mark.usefixtures("in_two_files")
def test_saves_over_the_file_it_was_loaded_from(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    save(load(network()), path, check=accept)
    save(load(path), path, check=accept)
    np.testing.assert_array_equal(run(path), EXPECTED)


@pytest.mark.usefixtures("in_two_files")
def test_saved_files_may_be_read_by_whom_new_files_may_be_read(tmp_path: Path) -> None:
    save(load(network()), tmp_path / "net.onnx", check=accept)
    (tmp_path / "other").touch()
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "other").stat().st_mode}


@pytest.mark.usefixtures("in_two_files")
def test_the_file_that_is_checked_is_whole_and_not_yet_in_place(tmp_path: Path) -> None:
    path, checked = tmp_path / "net.onnx", []

    def check(written: Path) -> None:
        np.testing.assert_array_equal(run(written), EXPECTED)
        assert written != path
        assert not path.exists()
        checked.append(written.name)

    save(load(network()), path, check=check)
    assert checked == ["net.onnx"]


# --- whole or not at all --------------------------------------------------------------------------------------------------


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def refuse(*_: object, **__: object) -> None:
    raise ModelError("it does not run")


def while_writing(error: Callable[..., None]) -> Callable[[pytest.MonkeyPatch], None]:
    """What is written is there by half when it happens."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        def write_half(model: ir.Model, path: Path, *, external_data: str) -> None:
            Path(path).with_name(external_data).write_bytes(WEIGHT.tobytes()[:100])
            error()

        monkeypatch.setattr(os, "fsync", error)
        monkeypatch.setattr(ir, "save", write_half)

    return patch


def while_renaming(call: int, error: Callable[..., None]) -> Callable[[pytest.MonkeyPatch], None]:
    """It happens at the `call`-th renaming of a file that was there or was written to where it belongs."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        calls, replace = [], os.replace

        def counted(source: Path, target: Path) -> None:
            calls.append(target)
            error() if len(calls) == call else replace(source, target)

        monkeypatch.setattr(os, "replace", counted)

    return patch


FAILURES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], type[BaseException]]] = {
    "disk full": (while_writing(full), OutputError),
    "interrupted while writing": (while_writing(interrupt), KeyboardInterrupt),
    "first renaming fails": (while_renaming(1, full), OutputError),
    "interrupted at the first renaming": (while_renaming(1, interrupt), KeyboardInterrupt),
}
RENAMINGS = {
    f"{name} renaming {call}": (while_renaming(call, error), kind)
    for call in (2, 3)
    for name, error, kind in (("full at", full, OutputError), ("interrupted at", interrupt, KeyboardInterrupt))
}


def assert_fails_without_a_trace(folder: Path, kind: type[BaseException], check: Callable[[Path], None] = accept) -> None:
    before, path, model = contents(folder), folder / "net.onnx", load(network())
    with pytest.raises(kind) as caught:
        save(model, path, check=check)
    if kind is OutputError:
        assert str(caught.value) == f"{path}: cannot be written (No space left on device); {REMEDY}"
    assert contents(folder) == before


@pytest.mark.parametrize("old", [{}, {"net.onnx": OLD}, {"net.onnx": OLD, "net.onnx.data": OLD}], ids=["none", "model", "model and data"])
@pytest.mark.parametrize(("patch", "kind"), FAILURES.values(), ids=FAILURES)
@pytest.mark.usefixtures("in_two_files")
def test_failures_leave_what_was_there(
    patch: Callable[[pytest.MonkeyPatch], None],
    kind: type[BaseException],
    old: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    with monkeypatch.context() as context:
        patch(context)
        assert_fails_without_a_trace(tmp_path, kind)


@pytest.mark.parametrize(("patch", "kind"), RENAMINGS.values(), ids=RENAMINGS)
def test_failures_between_two_files_leave_what_was_there(
    patch: Callable[[pytest.MonkeyPatch], None], kind: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three renamings: the old weights out of the way, the new weights, the model."""
    monkeypatch.setattr(store, "LARGEST_MESSAGE", 0)
    for name in ("net.onnx", "net.onnx.data"):
        (tmp_path / name).write_bytes(OLD)
    with monkeypatch.context() as context:
        patch(context)
        # Putting the old weights back is a renaming too, which the count lets through.
        assert_fails_without_a_trace(tmp_path, kind)


@pytest.mark.parametrize(("check", "kind"), [(refuse, ModelError), (interrupt, KeyboardInterrupt), (full, OutputError)])
@pytest.mark.usefixtures("in_two_files")
def test_what_the_check_raises_leaves_what_was_there(check: Callable[[Path], None], kind: type[BaseException], tmp_path: Path) -> None:
    for name in ("net.onnx", "net.onnx.data"):
        (tmp_path / name).write_bytes(OLD)
    assert_fails_without_a_trace(tmp_path, kind, check)


@pytest.mark.usefixtures("in_two_files")
def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(OutputError, match=rf"net\.onnx: cannot be written \(.*\); {REMEDY}$"):
        save(load(network()), tmp_path / "net.onnx", check=accept)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert list((tmp_path / "net.onnx").iterdir()) == []


@pytest.mark.parametrize("folder", ["no such folder", "file.txt"])
def test_a_missing_folder_is_an_error_that_says_so(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("a file, not a folder")
    path = tmp_path / folder / "net.onnx"
    for write in (lambda: save(load(network()), path, check=accept), lambda: write_text(path, "text")):
        with pytest.raises(ZeropointError, match=rf"^{re.escape(str(path))}: cannot be written \((No such file|Not a).*\); {REMEDY}$"):
            write()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


# --- text -----------------------------------------------------------------------------------------------------------------


def test_text_is_written_as_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_text(path, "größe\n")
    write_text(str(path), "größer\n")
    assert contents(tmp_path) == {"plan.json": b"gr\xc3\xb6\xc3\x9fer\n"}


@pytest.mark.parametrize(("patch", "kind"), FAILURES.values(), ids=FAILURES)
def test_text_is_written_whole_or_not_at_all(
    patch: Callable[[pytest.MonkeyPatch], None], kind: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.json").write_bytes(OLD)
    with monkeypatch.context() as context:
        patch(context)
        with pytest.raises(kind):
            write_text(tmp_path / "plan.json", "new")
    assert contents(tmp_path) == {"plan.json": OLD}
