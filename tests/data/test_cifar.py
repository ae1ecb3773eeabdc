"""CIFAR in all its forms, made small here, and pickles that want to do more than hold images."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from afftool.data import load, safe_pickle
from afftool.errors import DataError, LoadError, UserError

Files = dict[str, bytes]


def _images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def _old_pickle(value: Any) -> bytes:
    """As Python 2 wrote them: protocol 2, text as raw bytes, numpy under its old module name."""

    class Old(pickle._Pickler):
        dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

        def save_bytes(self, raw: bytes) -> None:
            if len(raw) < 256:
                self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw)
            else:
                self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
            self.memoize(raw)

        def save_str(self, text: str) -> None:
            self.save_bytes(text.encode("latin1"))

        dispatch[bytes], dispatch[str] = save_bytes, save_str

    stream = io.BytesIO()
    Old(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def _cifar10(dump: Callable[[Any], bytes] = _old_pickle) -> Files:
    def batch(count: int, seed: int) -> bytes:
        labels = [i % 10 for i in range(count)]
        names = [f"image_{i}.png" for i in range(count)]
        return dump({"batch_label": "a batch", "labels": labels, "data": _images(count, seed), "filenames": names})

    files = {f"data_batch_{i}": batch(20, i) for i in range(1, 6)}
    files["test_batch"] = batch(10, 6)
    files["batches.meta"] = dump({"num_cases_per_batch": 20, "label_names": [f"class{i}" for i in range(10)]})
    return {f"cifar-10-batches-py/{name}": raw for name, raw in files.items()}


def _cifar100(dump: Callable[[Any], bytes] = _old_pickle) -> Files:
    def part(count: int, seed: int) -> bytes:
        fine = [i % 100 for i in range(count)]
        return dump({"fine_labels": fine, "coarse_labels": [f // 5 for f in fine], "data": _images(count, seed)})

    meta = {
        "fine_label_names": [f"fine{i}" for i in range(100)],
        "coarse_label_names": [f"coarse{i}" for i in range(20)],
    }
    files = {"train": part(200, 1), "test": part(100, 2), "meta": dump(meta)}
    return {f"cifar-100-python/{name}": raw for name, raw in files.items()}


def _binary(python: Files, keys: list[str]) -> Files:
    """The same content in the binary version."""
    files: Files = {}
    for path, raw in python.items():
        name = path.rpartition("/")[2]
        content = safe_pickle.load(raw, name)
        if "data" in content:
            head = np.stack([np.array(content[key], np.uint8) for key in keys], axis=1)
            files[f"cifar-bin/{name}.bin"] = np.concatenate([head, content["data"]], axis=1).tobytes()
        for key, text in (("label_names", "batches.meta.txt"), ("fine_label_names", "fine_label_names.txt")):
            if key in content:
                files[f"cifar-bin/{text}"] = ("\n".join(content[key]) + "\n").encode()
    return files


def _write(folder: Path, files: Files) -> Path:
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    return folder


def _archive(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


def test_every_form_of_cifar10_gives_the_same_data(tmp_path: Path) -> None:
    python = _cifar10()
    new = _cifar10(lambda value: pickle.dumps(value, protocol=4))
    binary = {
        name.replace("cifar-bin", "cifar-10-batches-bin"): raw for name, raw in _binary(python, ["labels"]).items()
    }
    extracted = _write(tmp_path / "py", python)
    paths = [
        extracted,
        extracted / "cifar-10-batches-py",
        _write(tmp_path / "bin", binary),
        _archive(tmp_path / "py.tar.gz", python),
        _archive(tmp_path / "bin.tar.gz", binary),
        _archive(tmp_path / "cifar-10-python.tar.gz", new),
        tmp_path / "cifar-10-python.tar.gz",
    ]
    (tmp_path / "holds").mkdir()
    _archive(tmp_path / "holds" / "cifar-10-python.tar.gz", python)
    _archive(tmp_path / "holds" / "cifar-100-python.tar.gz", _cifar100())
    splits = [load(f"cifar10:{path}") for path in [*paths, tmp_path / "holds"]]
    assert {s.fingerprint for s in splits} == {splits[0].fingerprint}
    first = splits[0]
    assert first.train.images.shape == (100, 3, 32, 32)
    np.testing.assert_array_equal(first.train.images[20:40].reshape(20, -1), _images(20, 2))
    assert first.classes[3] == "class3"
    assert "Krizhevsky" in first.citation


def test_cifar100_has_a_hundred_classes_or_the_twenty_superclasses(tmp_path: Path) -> None:
    python = _cifar100()
    path = _archive(tmp_path / "cifar-100-python.tar.gz", python)
    fine, coarse = load(f"cifar100:{path}"), load(f"cifar100:{path}:labels=coarse")
    assert (len(fine.classes), len(coarse.classes)) == (100, 20)
    assert coarse.classes[19] == "coarse19"
    np.testing.assert_array_equal(fine.train.labels // 5, coarse.train.labels)
    binary = _write(tmp_path / "b", _binary(python, ["coarse_labels", "fine_labels"]))
    assert load(f"cifar100:{binary / 'cifar-bin'}").fingerprint == fine.fingerprint
    np.testing.assert_array_equal(
        load(f"cifar100:{binary / 'cifar-bin'}:labels=coarse").train.labels, coarse.train.labels
    )


def test_a_subset_of_cifar_is_stratified(tmp_path: Path) -> None:
    path = _archive(tmp_path / "cifar-10-python.tar.gz", _cifar10())
    assert np.bincount(load(f"cifar10:{path}", train_images=30).train.labels).tolist() == [3] * 10


class _Runs:
    """A pickle that would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda marker: _Runs(marker), r"posix\.system|os\.system"),
        (lambda marker: {"data": np.zeros((1, 3072), np.float32)}, "f4"),
        (lambda marker: {"data": np.array([object], dtype=object)}, "O8"),
        (lambda marker: {"data": {1, 2}}, "set"),
        (lambda marker: {"data": Path("x")}, "pathlib"),
        (lambda marker: {"labels": [1 + 2j]}, "complex"),
        (lambda marker: {"labels": bytearray(b"1")}, "bytearray"),
    ],
)
def test_a_pickle_that_holds_more_than_images_is_refused_and_named(
    tmp_path: Path, make: Callable[[Path], Any], found: str
) -> None:
    marker = tmp_path / "marker"
    files = _cifar10()
    files["cifar-10-batches-py/data_batch_3"] = pickle.dumps(make(marker), protocol=2)
    with pytest.raises(LoadError, match=found) as caught:
        load(f"cifar10:{_write(tmp_path / 'data', files)}")
    assert "data_batch_3" in caught.value.message
    assert not marker.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nndarray\n(tR.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01K\x02U\x02u1\x89U\x00tb.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        b"\x80\x02Pid\n.",
        b"\x80\x02K\x01.",
        b"\x80\x02}",
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_no_hand_made_pickle_gets_through(raw: bytes) -> None:
    with pytest.raises(LoadError, match="some file"):
        safe_pickle.load(raw, "some file")


def _without(name: str) -> Callable[[Files], Files]:
    return lambda files: {path: raw for path, raw in files.items() if not path.endswith(name)}


def _with(name: str, value: Any) -> Callable[[Files], Files]:
    return lambda files: files | {f"cifar-10-batches-py/{name}": _old_pickle(value)}


def _cut(name: str) -> Callable[[Files], Files]:
    return lambda files: {path: raw[:9000] if path.endswith(name) else raw for path, raw in files.items()}


def _no_nines(files: Files) -> Files:
    batch = _old_pickle({"data": _images(9, 0), "labels": list(range(9))})
    return files | {f"cifar-10-batches-py/data_batch_{i}": batch for i in range(1, 6)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("data_batch_4"), "data_batch_4 is missing"),
        (_without("test_batch"), "test_batch is missing"),
        (lambda files: {}, "holds no cifar10 files"),
        (_with("data_batch_2", {"labels": [0] * 20}), "data_batch_2 has no 'data'"),
        (_with("data_batch_2", {"data": _images(20, 0), "fine_labels": [0] * 20}), "has no 'labels'"),
        (_with("data_batch_2", {"data": _images(20, 0), "labels": [0] * 19}), "20 images and 19 labels"),
        (_with("data_batch_2", {"data": _images(20, 0), "labels": [0] * 19 + [10]}), "image 19 has label 10"),
        (_with("data_batch_2", {"data": _images(20, 0), "labels": [0] * 19 + [10**5000]}), "image 19 has a label of"),
        (_with("data_batch_2", {"data": _images(20, 0), "labels": [-(2**64)] * 20}), "image 0 has a label"),
        (_with("batches.meta", {"label_names": 10}), "batches.meta: 'label_names' is no list of names"),
        (_with("batches.meta", {"label_names": None}), "batches.meta: 'label_names' is no list of names"),
        (_with("batches.meta", {"label_names": "abcdefghij"}), "batches.meta: 'label_names' is no list of names"),
        (_with("batches.meta", {"label_names": [["a"]] * 10}), "batches.meta: 'label_names' is no list of names"),
        (_with("data_batch_2", {"data": _images(20, 0)[:, :100], "labels": [0] * 20}), r"\(20, 100\)"),
        (_with("data_batch_2", {"data": _images(0, 0), "labels": []}), "data_batch_2 is empty"),
        (_cut("data_batch_1"), "data_batch_1 is no readable pickle"),
        (_no_nines, "no training image of class 'class9'"),
    ],
)
@pytest.mark.parametrize("archived", [False, True])
def test_broken_cifar_is_explained(
    tmp_path: Path, change: Callable[[Files], Files], message: str, archived: bool
) -> None:
    files = change(_cifar10())
    if archived:
        path = _archive(tmp_path / "cifar-10-python.tar.gz", files)
    else:
        (path := tmp_path / "data").mkdir()
        _write(path, files)
    with pytest.raises(UserError, match=message) as caught:
        load(f"cifar10:{path}")
    assert caught.value.hint
    assert str(tmp_path) in caught.value.message


def test_a_cut_off_archive_or_binary_file_is_explained(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "cifar-10-python.tar.gz", _cifar10())
    archive.write_bytes(archive.read_bytes()[:-20000])
    with pytest.raises(DataError, match="no whole tar archive"):
        load(f"cifar10:{archive}")
    page = tmp_path / "page.tar.gz"
    page.write_text("<html>not found</html>")
    with pytest.raises(DataError, match="no whole tar archive"):
        load(f"cifar10:{page}")
    binary = _binary(_cifar10(), ["labels"])
    binary["cifar-bin/data_batch_5.bin"] = binary["cifar-bin/data_batch_5.bin"][:-1]
    with pytest.raises(DataError, match=r"data_batch_5.bin is 61459 bytes"):
        load(f"cifar10:{_write(tmp_path, binary) / 'cifar-bin'}")


def test_cifar_without_class_names_is_read_with_numbers(tmp_path: Path) -> None:
    files = _with("batches.meta", {"num_cases_per_batch": 20})(_cifar10())
    assert load(f"cifar10:{_write(tmp_path, files)}").classes == tuple("0123456789")


def test_a_path_that_does_not_exist_is_named() -> None:
    with pytest.raises(DataError, match="nowhere/cifar does not exist"):
        load("cifar10:nowhere/cifar")
