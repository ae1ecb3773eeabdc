"""Whatever the system will not read, in whatever source, is an error that names it and says what to do."""

import bz2
import json
import lzma
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from afftool.data import load
from afftool.errors import DataError

Image = pytest.importorskip("PIL.Image")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def _cifar10(root: Path) -> None:
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = np.random.default_rng(0).integers(0, 256, (10, 3073), np.uint8)
        records[:, 0] = range(10)
        (root / f"{name}.bin").write_bytes(records.tobytes())
    (root / "batches.meta.txt").write_text("\n".join("abcdefghij"))


def _folder(root: Path) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (4, 4)).save(root / part / name / f"{i}.png")


def _masks(root: Path) -> None:
    for part in ("train", "test"):
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            (root / part / kind).mkdir(parents=True)
            for i in range(3):
                Image.new(mode, (4, 4)).save(root / part / kind / f"{i}.png")
    (root / "classes.txt").write_text("road\ncar\n")


def _parquet(root: Path) -> None:
    Image.new("RGB", (4, 4)).save(root / "picture.png")
    features = {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    for part in ("train", "test"):
        for shard in range(2):
            cells = [{"bytes": None, "path": "picture.png"}, {"bytes": (root / "picture.png").read_bytes()}]
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            table = pa.table({"image": pa.array(cells, kind), "label": [0, 1]})
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
            pq.write_table(table, root / f"{part}-{shard}.parquet")


MAKE: dict[str, Callable[[Path], None]] = {
    "cifar10": _cifar10,
    "folder": _folder,
    "masks": _masks,
    "parquet": _parquet,
    "hub": _parquet,
}
FILES = [
    *[("cifar10", name) for name in ("data_batch_3.bin", "test_batch.bin", "batches.meta.txt")],
    *[("folder", name) for name in ("train/dog/2.png", "test/cat/0.png")],
    *[("masks", name) for name in ("train/images/1.png", "test/masks/0.png", "classes.txt")],
    *[("parquet", name) for name in ("train-1.parquet", "test-0.parquet", "picture.png")],
]
FOLDERS = [
    *[("folder", name) for name in ("train", "train/dog", "test/cat")],
    *[("masks", name) for name in ("test", "train/images", "train/masks")],
]


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that any user may enter; pytest's own are closed to others."""
    made = Path(tempfile.mkdtemp(prefix="afftool-unreadable-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _folder_instead(path: Path) -> None:
    _remove(path)
    path.mkdir()


def _dead_link(path: Path) -> None:
    _remove(path)
    path.symlink_to("gone")


def _link_to_itself(path: Path) -> None:
    _remove(path)
    path.symlink_to(path.name)


def _pipe(path: Path) -> None:
    """To open it would wait forever."""
    _remove(path)
    os.mkfifo(path)


def _refuses_to_be_read(path: Path) -> None:
    """A plain file that opens, and whose first byte is an error of input and output."""
    _remove(path)
    path.symlink_to("/proc/self/mem")


BREAK = {
    "is a folder, not a file": _folder_instead,
    "is a link that leads nowhere": _dead_link,
    "cannot be read: Too many levels of symbolic links": _link_to_itself,
    "is a pipe, not a file": _pipe,
    "cannot be read: Input/output error": _refuses_to_be_read,
}


@contextmanager
def nobody() -> Iterator[None]:
    """A user without rights, also where the tests run as root, whom no permission stops."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


def refused(source: str, root: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        load(f"{source}:{root}")
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("says", BREAK)
@pytest.mark.parametrize(("source", "name"), FILES)
def test_a_file_that_cannot_be_read_is_named(source: str, name: str, says: str, root: Path) -> None:
    MAKE[source](root)
    BREAK[says](root / name)
    message = refused(source, root).message
    assert name in message
    # pyarrow asks for the file's size first, which is 0, and no image is followed out of its folder
    if not (source == "parquet" and "Input/output" in says):
        assert says in message


@pytest.mark.parametrize(("source", "name"), [*FILES, *FOLDERS])
def test_what_the_user_may_not_read_is_named(source: str, name: str, root: Path) -> None:
    MAKE[source](root)
    load(f"{source}:{root}")  # readable so far, and all modules are imported
    (root / name).chmod(0)
    with nobody():
        error = refused(source, root)
    (root / name).chmod(0o755)
    assert name in error.message
    assert "Permission denied" in error.message
    assert "who may read it" in (error.hint or "")


@pytest.mark.parametrize("source", ["cifar10", "folder", "masks", "parquet", "hub"])
def test_a_path_behind_a_closed_folder_is_named(source: str, root: Path) -> None:
    if source == "hub":
        pytest.importorskip("datasets")
    (root / "closed" / "data").mkdir(parents=True)
    MAKE[source](root / "closed" / "data")
    (root / "closed").chmod(0)
    with nobody():
        error = refused(source, root / "closed" / "data")
    (root / "closed").chmod(0o755)
    assert str(root / "closed") in error.message


@pytest.mark.parametrize(("source", "name"), FOLDERS)
def test_a_link_to_a_lost_folder_is_named(source: str, name: str, root: Path) -> None:
    MAKE[source](root)
    _dead_link(root / name)
    message = refused(source, root).message
    assert name in message
    assert "leads nowhere" in message


@pytest.mark.parametrize("broken", [_dead_link, _pipe])
def test_a_hub_folder_is_not_read_without_the_file_that_cannot_be(broken: Callable[[Path], None], root: Path) -> None:
    pytest.importorskip("datasets")
    MAKE["hub"](root)
    broken(root / "train-1.parquet")
    assert "train-1.parquet" in refused("hub", root).message


def test_a_hub_folder_with_a_cut_off_file_names_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", root / "cache")
    MAKE["hub"](root)
    for path in root.glob("train-*.parquet"):
        path.write_bytes(path.read_bytes()[:-9])
    assert "train-0.parquet" in refused("hub", root).message


@pytest.mark.parametrize("source", ["cifar10", "folder", "masks", "parquet"])
@pytest.mark.parametrize("broken", [_dead_link, _link_to_itself, _pipe, _refuses_to_be_read])
def test_a_path_that_holds_no_data_is_named(source: str, broken: Callable[[Path], None], root: Path) -> None:
    (root / "data").mkdir()
    broken(root / "data")
    assert str(root / "data") in refused(source, root / "data").message


@pytest.mark.parametrize("broken", [_folder_instead, _dead_link, _pipe, _refuses_to_be_read])
def test_an_archive_that_cannot_be_read_is_named(broken: Callable[[Path], None], root: Path) -> None:
    archive = root / "cifar-10-python.tar.gz"
    archive.touch()
    broken(archive)
    assert str(archive) in refused("cifar10", root).message
    assert "whole tar" not in refused("cifar10", root).message


@pytest.mark.parametrize("opened", [lzma.open, bz2.open])
def test_a_damaged_archive_of_any_compression_is_no_whole_archive(opened: Callable[..., object], root: Path) -> None:
    plain, packed = root / "plain.tar", root / "packed.tar"
    (root / "data").mkdir()
    _cifar10(root / "data")
    with tarfile.open(plain, "w") as tar:
        tar.add(root / "data", "cifar-10-batches-bin")
    with opened(packed, "wb") as stream:  # type: ignore[attr-defined]
        stream.write(plain.read_bytes())
    assert len(load(f"cifar10:{packed}").train) == 50
    raw = bytearray(packed.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 40] = bytes(40)
    packed.write_bytes(raw)
    assert "no whole tar archive" in refused("cifar10", packed).message


def test_a_parquet_footer_of_nonsense_is_no_whole_file(root: Path) -> None:
    MAKE["parquet"](root)
    path = root / "train-1.parquet"
    path.write_bytes(path.read_bytes().replace(b"path", b"\xb0ath"))  # a column's name that is no text
    assert "train-1.parquet is no whole Parquet file" in refused("parquet", root).message
