from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from zeropoint.data import InputInfo, open_data
from zeropoint.data.arrays import open_array_file
from zeropoint.errors import DataError

X = InputInfo("x", np.dtype(np.float32), (None, 2))
Y = InputInfo("images/y:0", np.dtype(np.int64), (None,))
VALUES = np.arange(10, dtype=np.float32).reshape(5, 2)


def read(data: object, *inputs: InputInfo) -> list[dict[str, list]]:
    return [{name: array.tolist() for name, array in feed.items()} for feed in open_data(data, inputs or [X])]


def is_mapped(array: npt.NDArray) -> bool:
    return isinstance(array, np.memmap) or (isinstance(array.base, np.ndarray) and is_mapped(array.base))


EXPECTED = [{"x": [row]} for row in VALUES.tolist()]


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    samples = open_data(tmp_path / "a.npy", [X])
    assert read(str(tmp_path / "a.npy")) == EXPECTED
    assert samples.ids == ("a.npy[0]", "a.npy[1]", "a.npy[2]", "a.npy[3]", "a.npy[4]")
    assert is_mapped(samples[3]["x"])


def test_npy_with_the_batch_axis_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES[:, np.newaxis])
    assert read(tmp_path / "a.npy") == EXPECTED


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_with_slashes_in_names(tmp_path: Path, save: object, order: str) -> None:
    counts = np.arange(5, dtype=np.int64)
    save(tmp_path / "a.npz", **{"x": np.asarray(VALUES, order=order), "images/y:0": counts})  # type: ignore[operator, call-overload]
    assert read(tmp_path / "a.npz", X, Y) == [{"x": [VALUES[i].tolist()], "images/y:0": [i]} for i in range(5)]


def test_stored_npz_is_mapped_and_compressed_is_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "stored.npz", x=VALUES)
    np.savez_compressed(tmp_path / "packed.npz", x=VALUES)
    assert is_mapped(open_data(tmp_path / "stored.npz", [X])[0]["x"])
    assert not is_mapped(open_data(tmp_path / "packed.npz", [X])[0]["x"])


def test_npz_whose_directory_and_local_header_differ(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VALUES)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        info = zipfile.ZipInfo("x.npy")
        info.extra = b"\x99\x99\x04\x00abcd"
        archive.writestr(info, (tmp_path / "x.npy").read_bytes())
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.infolist()[0].extra = b""
        archive.writestr("note.txt", "not an array")
    assert read(tmp_path / "a.npz") == EXPECTED


def test_positional_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", VALUES)
    assert read(tmp_path / "a.npz") == EXPECTED


def test_folder_of_batches_and_single_samples(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "a.npy", VALUES[:2])
    np.save(tmp_path / "b.npy", VALUES[2])
    np.savez(tmp_path / "sub" / "c.npz", x=VALUES[3:])
    samples = open_data(tmp_path, [X])
    assert [feed["x"].tolist() for feed in samples] == [[row] for row in VALUES.tolist()]
    assert samples.ids == ("a.npy[0]", "a.npy[1]", "b.npy", "sub/c.npz[0]", "sub/c.npz[1]")


@pytest.mark.parametrize(
    "data", [VALUES, {"x": VALUES}, {"x": VALUES.tolist()}, {"arr_0": VALUES}], ids=["array", "dict", "lists", "arr_0"]
)
def test_memory(data: object) -> None:
    assert read(data) == EXPECTED


def test_tensor() -> None:
    torch = pytest.importorskip("torch")
    assert read(torch.from_numpy(VALUES)) == EXPECTED


def test_file_written_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for factor in (1, 2):
        np.savez_compressed(path, x=VALUES * factor)
        assert open_data(path, [X])[1]["x"].tolist() == [[2 * factor, 3 * factor]]


def write_pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}, None], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        pytest.param("a.npy", write_pickled, "Python objects in it are never loaded", id="pickled npy"),
        pytest.param("a.npy", lambda p: p.write_bytes(pickle.dumps([1])), "never loaded", id="plain pickle"),
        pytest.param("a.npz", lambda p: np.savez(p, x=np.array([None], object)), "never loaded", id="pickled npz"),
        pytest.param("a.npy", lambda p: p.write_bytes(b""), "cannot be read", id="zero bytes"),
        pytest.param("a.npz", lambda p: p.write_bytes(b""), "cannot be read", id="zero bytes npz"),
        pytest.param("a.npz", lambda p: p.write_bytes(b"PK\x03\x04 cut off"), "cannot be read", id="broken npz"),
        pytest.param("a.npy", lambda p: np.savez(p.open("wb"), x=VALUES), "name it .npz", id="npz called npy"),
        pytest.param("a.npy", lambda p: np.save(p, VALUES[:0]), "found no samples", id="no samples"),
        pytest.param("a.npy", lambda p: np.save(p, np.zeros((5, 3))), r"found shape \(5, 3\), expected \(samples, 2\)", id="shape"),
        pytest.param("a.npy", lambda p: np.save(p, np.zeros((5, 2, 2, 2))), r"found shape \(5, 2, 2, 2\)", id="rank"),
        pytest.param("a.npy", lambda p: np.save(p, np.zeros((5, 2), complex)), "found .*complex128", id="complex"),
        pytest.param("a.npy", lambda p: np.save(p, np.array([["a", "b"]])), "found .*<U1", id="text"),
        pytest.param("a.npz", lambda p: np.savez(p, z=VALUES), "found arrays 'z', expected 'x'", id="name"),
        pytest.param("a.npz", lambda p: np.savez(p, x=VALUES, z=VALUES), "found arrays 'x', 'z', expected 'x'", id="one too many"),
        pytest.param("a.npy", lambda p: np.save(p, np.full((5, 2), np.nan)), r"sample 'a.npy\[0\]': input 'x': found 2 NaN", id="NaN"),
    ],
)
def test_files_that_do_not_serve(tmp_path: Path, name: str, write: object, message: str) -> None:
    write(tmp_path / name)  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as caught:
        open_data(tmp_path / name, [X])
    assert name in str(caught.value)


def test_truncated_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-8])
    with pytest.raises(DataError, match=r"a\.npy: cannot be read"):
        open_data(tmp_path / "a.npy", [X])


def test_a_later_nan_is_found_when_it_is_read() -> None:
    values = VALUES.copy()
    values[3, 1] = np.inf
    samples = open_data(values, [X])
    assert samples[2]["x"].tolist() == [[4, 5]]
    with pytest.raises(DataError, match=r"sample 'data\[3\]': input 'x': found 1 NaN or infinite"):
        samples[3]


def test_float_for_an_integer_input_is_refused() -> None:
    with pytest.raises(DataError, match="found dtype float32, expected int64"):
        open_data(VALUES[:, 0], [Y])


def test_unequal_lengths() -> None:
    with pytest.raises(DataError, match=r"found different numbers of samples \('x': 5, 'images/y:0': 4\)"):
        open_data({"x": VALUES, "images/y:0": np.arange(4)}, [X, Y])


def test_one_array_for_two_inputs() -> None:
    with pytest.raises(DataError, match="found one array, expected one for each of the inputs 'x', 'images/y:0'"):
        open_data(VALUES, [X, Y])


def test_input_without_batch_axis() -> None:
    x, h = InputInfo("x", np.dtype("f4"), (1, 2)), InputInfo("h", np.dtype("f4"), (3, 1, 4))
    states = np.arange(60, dtype=np.float32).reshape(5, 3, 1, 4)
    samples = open_data({"x": VALUES, "h": states}, [x, h])
    np.testing.assert_array_equal(samples[4]["h"], states[4])
    assert samples[4]["x"].shape == (1, 2)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no such file"):
        open_array_file(tmp_path / "no.npy", [X])
