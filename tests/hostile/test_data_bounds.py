"""Small files that ask for a machine's whole memory, or for none of what they seem: refused by name, at once."""

from __future__ import annotations

import gzip
import io
import lzma
import pickle
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afftool.data import load, safe_pickle
from afftool.errors import DataError, LoadError, SpecError

Image = pytest.importorskip("PIL.Image")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 31035704\n"
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


@pytest.fixture
def little() -> Iterator[None]:
    """What is inside may take no more than some megabytes of Python's and numpy's memory."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20


def _cifar() -> dict[str, bytes]:
    """The binary version, ten images a batch."""
    records = np.random.default_rng(0).integers(0, 256, (10, 3073), np.uint8)
    records[:, 0] = range(10)
    return {f"{name}.bin": records.tobytes() for name in BATCHES}


def _tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], kind: str = "w:gz") -> str:
    """An archive whose headers need not be true."""
    raw = b"".join(
        member.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512) for member, data in members
    ) + bytes(1024)
    packed = {"w:gz": gzip.compress, "w:xz": lzma.compress, "w:": bytes}[kind](raw)
    path.write_bytes(packed)
    return f"cifar10:{path}"


def _member(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # put into place 2^31 of the memo
        b"Np2147483647\n.",
        b"\x80\x04\x8e\0\0\0\x80\0\0\0\0x.",  # bytes of 2 GB, text of 2 GB, and so on
        b"\x80\x04\x8d\0\0\0\x80\0\0\0\0x.",
        b"\x80\x05\x96\0\0\0\x80\0\0\0\0x.",
        b"\x80\x02\x8b\xff\xff\xff\x7fx.",
        b"T\xff\xff\xff\x7fx.",
        b"\x80\x04\x95\0\0\0\x80\0\0\0\0N.",
        b"\x80\x02}X\1\0\0\0aL" + b"9" * 100_000 + b"L\ns.",
    ],
)
def test_an_instruction_of_a_pickle_that_asks_for_gigabytes_is_refused(program: bytes) -> None:
    with pytest.raises(LoadError, match="some file") as caught:
        safe_pickle.load(program, "some file")
    assert caught.value.hint


def test_a_pickle_of_very_many_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afftool.data.safe_pickle._MOST_STEPS", 1000)
    with pytest.raises(LoadError, match="it holds more than 1,000 instructions"):
        safe_pickle.load(b"N" * 1001 + b".", "some file")


def _doubling(depth: int, start: Any) -> Any:
    value = start
    for _ in range(depth):
        value = [value, value]
    return value


def _wide() -> Any:
    value: Any = 0
    for _ in range(6):
        value = [value] * 100
    return value


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (pickle.dumps({"a": _doubling(40, "x")}), "lists nested too deep|lists within lists that explode"),
        (pickle.dumps({"a": _doubling(7, ["x"] * 50)}), "lists within lists that explode"),
        (pickle.dumps({"a": _wide()}), "lists within lists that explode"),
        (b"\x80\x02}X\1\0\0\0a" + b"]" * 500 + b"a" * 499 + b"s.", "lists nested too deep"),
        (b"\x80\x02}q\0X\1\0\0\0ah\0s.", "lists within lists that explode"),
    ],
)
def test_lists_that_hold_one_another_do_not_explode(raw: bytes, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        safe_pickle.load(raw, "some file")


@pytest.mark.parametrize(
    "keys", [b")" + b"\x85" * 100_000, b")" + b"q\1h\1\x86" * 60], ids=["a hundred thousand deep", "shared"]
)
def test_no_key_of_a_pickle_takes_forever_to_hash(keys: bytes) -> None:
    with pytest.raises(LoadError, match="it holds a tuple as a key"):
        safe_pickle.load(b"\x80\x02}" + keys + b"Ns.", "some file")


@pytest.mark.parametrize("shape", [(-1, -1), (2**40, 0, 2**40), (1.0,), ("a",), (3, -1), [1]])
def test_an_array_of_a_shape_that_cannot_be_is_refused(shape: Any) -> None:
    class Stated:
        def __reduce__(self) -> Any:
            array = np.zeros((1, 1), np.uint8).__reduce__()
            return array[0], array[1], (1, shape, array[2][2], False, b"x")  # type: ignore[index]

    with pytest.raises(LoadError):
        safe_pickle.load(pickle.dumps({"data": Stated()}, protocol=2), "some file")


def test_a_name_that_could_not_be_printed_is_made_printable() -> None:
    content = safe_pickle.load(pickle.dumps({"label_names": ["\ud800x"]}), "some file")
    assert content == {"label_names": ["?x"]}


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([(_member("x/data_batch_1", 8 * 2**30), b"")], "data_batch_1 is more than the 512 MiB that are read"),
        ([(_member("other", 8 * 2**30), b"")], "other is more than the 512 MiB"),
        ([(_member("a", 300 * 2**20), b""), (_member("b", 300 * 2**20), b"")], "more than the 512 MiB|no whole tar"),
        ([(_member("data_batch_1", 8 * 2**40, tarfile.GNUTYPE_SPARSE), b"")], "more than the 512 MiB|no whole tar"),
        ([(_member("data_batch_1", -1024), b"")], "more than|no whole tar"),
        ([(_member("n", 300 * 2**20, tarfile.GNUTYPE_LONGNAME), b"")], "no whole tar"),
        ([(_member("p", 300 * 2**20, tarfile.XHDTYPE), b"")], "no whole tar"),
    ],
)
def test_an_archive_that_claims_too_much_is_refused(
    members: list[tuple[tarfile.TarInfo, bytes]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        load(_tar(tmp_path / "a.tar.gz", members))
    assert str(tmp_path / "a.tar.gz") in caught.value.message
    assert caught.value.hint


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("kind", ["w:gz", "w:xz"])
@pytest.mark.parametrize("header", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_an_archive_that_unpacks_to_far_more_than_it_is_stops_at_the_bound(
    kind: str, header: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afftool.data.cifar._MOST_BYTES", 2**20)
    spec = _tar(tmp_path / "a.tar", [(_member("x", 20 * 2**20, header), bytes(20 * 2**20))], kind)
    tracemalloc.reset_peak()
    assert (tmp_path / "a.tar").stat().st_size < 100_000
    with pytest.raises(DataError, match=r"is more than the 1 MiB that are read of a CIFAR archive"):
        load(spec)


def test_an_archive_of_very_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afftool.data.cifar._MOST_MEMBERS", 100)
    with pytest.raises(DataError, match=r"a.tar.gz holds more than 100 members"):
        load(_tar(tmp_path / "a.tar.gz", [(_member(f"{i}", 0), b"") for i in range(101)]))


@pytest.mark.parametrize("kind", ["w:", "w:gz", "w:xz"])
def test_an_honest_archive_is_read_in_any_compression(kind: str, tmp_path: Path) -> None:
    members = [(_member(f"cifar/{name}", len(raw)), raw) for name, raw in _cifar().items()]
    assert len(load(_tar(tmp_path / "a.tar", members, kind)).train) == 50


@pytest.mark.usefixtures("little")
def test_a_batch_far_larger_than_cifars_is_refused_before_it_is_read(tmp_path: Path) -> None:
    for name, raw in _cifar().items():
        (tmp_path / name).write_bytes(raw)
    with open(tmp_path / "data_batch_2.bin", "r+b") as file:
        file.truncate(2**40)  # of which nothing is on the disk
    with pytest.raises(DataError, match=r"data_batch_2.bin is more than the 512 MiB that are read"):
        load(f"cifar10:{tmp_path}")


def _folder(root: Path, side: int = 40) -> Path:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            Image.new("RGB", (side, side)).save(root / part / name / "a.png")
    return root


def _masks(root: Path) -> Path:
    for part in ("train", "test"):
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            (root / part / kind).mkdir(parents=True)
            Image.new(mode, (40, 40)).save(root / part / kind / "a.png")
    return root


def _parquet(root: Path) -> Path:
    stream = io.BytesIO()
    Image.new("RGB", (40, 40)).save(stream, "png")
    root.mkdir()
    for part in ("train", "test"):
        cells = pa.array([{"bytes": stream.getvalue()}] * 2, pa.struct([("bytes", pa.binary())]))
        pq.write_table(pa.table({"image": cells, "label": [0, 1]}), root / f"{part}.parquet")
    return root


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (_folder, "folder", "4 images of 40x40 need 19.2 kB"),
        (_folder, "folder:size=20000", "4 images of 20000x20000 need 4.80 GB"),
        (_parquet, "parquet", "4 images of 40x40 need 19.2 kB"),
        (_masks, "masks:classes=1", "2 masks of 40x40 need 3.20 kB"),
        (_masks, "masks:classes=1:size=20000x30000", "2 masks of 20000x30000 need 1.20 GB"),
        (None, "shapes:size=64:train=1000:test=1000", "shapes: 2,000 images of 64 x 64 need 98.3 MB"),
        (None, "shapes:train=999999999", "images of 32 x 32 need 8.19 TB"),
        (None, "digits:size=8000", "digits of 8000x8000 need 690 GB"),
    ],
)
def test_data_that_has_no_room_in_memory_says_both_numbers_before_it_takes_any(
    make: Callable[[Path], Path] | None, name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afftool.environment.available_bytes", lambda: 3_000)
    source, _, options = name.partition(":")
    path = f":{make(tmp_path / 'data')}" if make else ""
    if source == "parquet":
        monkeypatch.setattr("afftool.data.parquet._LABEL_BYTES", 0)
    with pytest.raises(DataError, match=f"{words} of memory, and 3.00 kB are free") as caught:
        load(source + path + (f":{options}" if options else ""))
    assert ":size=" in (caught.value.hint or "")
    assert source == "digits" or "--train-images" in (caught.value.hint or "")


def test_where_the_free_memory_is_not_told_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afftool.environment.available_bytes", lambda: None)
    assert len(load(f"folder:{_folder(tmp_path)}").train) == 2


@pytest.mark.parametrize("name", ["folder", "masks", "parquet"])
def test_a_folder_of_more_entries_than_any_data_set_has_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = {"folder": _folder, "masks": _masks, "parquet": _parquet}[name](tmp_path / "data")
    deep = root / "train" / "cat" if name == "folder" else root / "train" / "images" if name == "masks" else root
    for i in range(50):
        (deep / f"{i}.txt").touch()
    monkeypatch.setattr("afftool.data.reading.MOST_ENTRIES", 40)
    with pytest.raises(DataError, match=r"data.* holds more than 40 files and folders"):
        load(f"{name}:{root}")


def test_a_class_folder_that_is_a_link_above_itself_is_not_walked_for_ever(
    tmp_path: Path,
) -> None:
    root = _folder(tmp_path / "data")
    shutil.rmtree(root / "train" / "cat")
    (root / "train" / "cat").symlink_to("..")
    assert load(f"folder:{root}").train.labels.tolist() == [0, 0, 0, 1]  # once round: links below are not followed


@pytest.mark.parametrize(
    ("make", "name", "source"),
    [
        (_folder, "train/cat/a.png", "folder"),
        (_masks, "test/masks/a.png", "masks"),
        (_masks, "classes.txt", "masks"),
        (_parquet, "train.parquet", "parquet"),
        (_parquet, "train.parquet", "hub"),
    ],
)
def test_a_pointer_of_git_lfs_is_known_as_one(
    make: Callable[[Path], Path], name: str, source: str, tmp_path: Path
) -> None:
    root = make(tmp_path / "data")
    (root / name).write_bytes(POINTER)
    if source == "hub":
        pytest.importorskip("datasets")
    with pytest.raises(DataError, match=f"{name} is a pointer of Git LFS, not the file itself") as caught:
        load(f"{source}:{root}")
    assert "git lfs pull" in (caught.value.hint or "")


def test_an_archive_or_a_batch_that_is_a_pointer_of_git_lfs_is_known_as_one(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(POINTER)
    for path in (tmp_path / "cifar-10-python.tar.gz", tmp_path):
        with pytest.raises(DataError, match=r"cifar-10-python.tar.gz is a pointer of Git LFS"):
            load(f"cifar10:{path}")
    for name, raw in _cifar().items():
        (tmp_path / name).write_bytes(raw)
    (tmp_path / "test_batch.bin").write_bytes(POINTER)
    with pytest.raises(DataError, match=r"test_batch.bin is a pointer of Git LFS"):
        load(f"cifar10:{tmp_path}")


@pytest.mark.parametrize(("one", "other"), [("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "stra\u00dfe")])
def test_class_folders_that_are_one_on_another_system_are_two_and_that_is_said(
    one: str, other: str, tmp_path: Path
) -> None:
    root = _folder(tmp_path)
    assert load(f"folder:{root}").note == ""
    for part in ("train", "test"):
        (root / part / "cat").rename(root / part / one)
        (root / part / "dog").rename(root / part / other)
    splits = load(f"folder:{root}")
    assert splits.classes == tuple(sorted((one, other)))
    assert splits.note == (
        f"the class folders {splits.classes[0]!r} and {splits.classes[1]!r}, which elsewhere are one, "
        "are taken as two classes."
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a\n" * 2**20, "is larger than 1 MiB"), (b"caf\xe9\n", "is not UTF-8 text")],
)
def test_class_names_are_read_within_bounds(content: bytes, words: str, tmp_path: Path) -> None:
    (_masks(tmp_path) / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"classes.txt {words}"):
        load(f"masks:{tmp_path}")


@pytest.mark.parametrize("spec", ["shapes:size={}", "shapes:train={}", "masks:x:void={}", "masks:x:classes={}"])
def test_a_number_of_thousands_of_digits_is_refused_in_words(spec: str) -> None:
    with pytest.raises(SpecError, match="is no whole number from"):
        load(spec.format("9" * 5000))


def _escaping(root: Path) -> str:
    root.mkdir()
    for part in ("train", "test"):
        cells = pa.array(
            [{"bytes": None, "path": "/etc/hostname"}] * 2, pa.struct({"bytes": pa.binary(), "path": pa.string()})
        )
        pq.write_table(pa.table({"image": cells, "label": [0, 1]}), root / f"{part}.parquet")
    return f"parquet:{root}"


def _program(root: Path) -> str:
    for path in _folder(root).rglob("*.png"):
        Image.new("RGB", (4, 4)).save(path, "eps")
    return f"folder:{root}"


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "words"),
    [(_escaping, "row 0 names the image '/etc/hostname', which leads out of"), (_program, "a.png cannot be used")],
)
def test_the_command_refuses_with_exit_2_and_stores_no_run(make: Callable[[Path], str], words: str, place: Any) -> None:
    spec = make(place.folder / "data")
    before = {name: state for name, state in place.content().items() if name.startswith("data")}
    done = place.run("ablate", "scale", "--data", spec, "--seeds", "1", "--store", "runs.sqlite")
    assert done.returncode == 2, done.stderr
    assert words in " ".join(done.stderr.split())
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert {name: state for name, state in place.content().items() if name.startswith("data")} == before
