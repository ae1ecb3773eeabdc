"""Parquet from elsewhere: no path in it leads out of its folder, and what a few bytes of it stand for is bounded."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afftool.data import load
from afftool.errors import DataError, UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")

CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10"
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _png(grey: int = 0, size: tuple[int, int] = (4, 4)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (grey,) * 3).save(stream, "png")
    return stream.getvalue()


def _write(root: Path, cells: Any, labels: Any, **options: Any) -> str:
    """The same rows in both splits."""
    root.mkdir(exist_ok=True)
    images = pa.array(cells, STRUCT) if isinstance(cells, list) else cells
    for part in ("train", "test"):
        pq.write_table(pa.table({"image": images, "label": labels}), root / f"{part}.parquet", **options)
    return f"parquet:{root}"


def _inline(count: int) -> list[dict[str, Any]]:
    return [{"bytes": _png(i), "path": None} for i in range(count)]


def _by_path(root: Path, path: str, source: str) -> str:
    _write(root, [{"bytes": None, "path": path}, {"bytes": None, "path": path}], [0, 1])
    return f"{source}:{root}"


@pytest.fixture(params=["parquet", "hub"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "hub":
        pytest.importorskip("datasets")
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return str(request.param)


def test_a_path_below_the_datas_own_folder_is_followed(source: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "pictures").mkdir(parents=True)
    (root / "pictures" / "a.png").write_bytes(_png(7))
    (root / "pictures" / "b.png").symlink_to("a.png")
    for name in ("a.png", "b.png"):
        assert load(_by_path(root, f"pictures/{name}", source)).train.images.max() == 7


@pytest.mark.parametrize("how", ["absolute", "above", "above and back", "a link", "a linked folder", "a null byte"])
def test_a_path_that_leads_out_of_the_folder_is_not_followed(how: str, source: str, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "x.png").write_bytes(_png(9))
    (root := tmp_path / "data").mkdir()
    (root / "link.png").symlink_to("../private/x.png")
    (root / "inside").symlink_to("../private")
    (root / "own.png").write_bytes(_png())
    path = {
        "absolute": str(tmp_path / "private" / "x.png"),
        "above": "../private/x.png",
        "above and back": "../data/own.png",
        "a link": "link.png",
        "a linked folder": "inside/x.png",
        "a null byte": "own.png\0",
    }[how]
    with pytest.raises(DataError, match=r"row 0 names the image .*, which leads out of .*data") as caught:
        load(_by_path(root, path, source))
    assert caught.value.hint == (
        "no path out of the data's own folder is followed; put the images into it, or into the file itself"
    )


def test_bytes_are_taken_and_the_path_beside_them_is_only_a_name(tmp_path: Path) -> None:
    cells = [{"bytes": _png(3), "path": "/etc/hostname"}, {"bytes": _png(3), "path": "../x"}]
    assert load(_write(tmp_path, cells, [0, 1])).train.images.max() == 3


@pytest.mark.parametrize("beginning", ["http://127.0.0.1:9", "ftp://127.0.0.1:9", "zip://x::http://127.0.0.1:9"])
def test_a_readme_with_an_address_is_refused_and_nobody_is_asked_there(
    beginning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset_builder", None)  # never come to
    (tmp_path / "README.md").write_text(
        f"---\nhomepage: https://example.org\nconfigs:\n- config_name: default\n  data_files: {beginning}/a.csv\n---\n"
    )
    with pytest.raises(DataError, match=f"its README takes data from {beginning}/a.csv, which is not in that folder"):
        load(f"hub:{tmp_path}")


def test_a_readme_that_explodes_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    lines = ["a0: &a0 [x, x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
    (tmp_path / "README.md").write_text("\n".join(["---", *lines, "---", ""]))
    with pytest.raises(DataError, match="its README says more than 1,000,000 things"):
        load(f"hub:{tmp_path}")


@pytest.mark.parametrize("where", ["absolute", "above", "a link"])
def test_a_readme_takes_no_files_from_outside_its_folder_and_links_in_it_are_followed(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    _write(tmp_path / "private", pa.array([_png(9)] * 2), [0, 1])
    (root := tmp_path / "data").mkdir()
    (root / "inside").symlink_to("../private")
    beginning = {"absolute": f"{tmp_path}/private", "above": "../private", "a link": "inside"}[where]
    files = "".join(f"  - split: {part}\n    path: {beginning}/{part}.parquet\n" for part in ("train", "test"))
    (root / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    if where == "a link":
        assert load(f"hub:{root}").train.images.max() == 9
    else:
        with pytest.raises(DataError, match=r"its README takes data from .*private/t.*parquet, which is not in that"):
            load(f"hub:{root}")


@pytest.mark.parametrize("highest", [2, 2**31, 2**63 - 1])
def test_a_label_that_makes_more_classes_than_there_are_rows_is_refused(
    highest: int, source: str, tmp_path: Path
) -> None:
    _write(tmp_path / "data", _inline(2), pa.array([0, highest], pa.int64()))
    with pytest.raises(DataError, match=f"label {highest} in row 1 makes {highest + 1:,} classes, and 2 rows cannot"):
        load(f"{source}:{tmp_path / 'data'}")


def test_a_label_beyond_every_signed_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1 has label 18446744073709551615, not a class number"):
        load(_write(tmp_path, _inline(2), pa.array([0, 2**64 - 1], pa.uint64())))


@pytest.mark.parametrize("labels", [pa.array([0.0, 1.0]), pa.array(["0", "1"]), pa.array([False, True])])
def test_labels_that_are_no_whole_numbers_are_refused_before_they_are_read(labels: Any, tmp_path: Path) -> None:
    spec = _write(tmp_path, _inline(2), labels)
    with pytest.raises(DataError, match=f"train.parquet: the labels are {labels.type}, not class numbers"):
        load(f"{spec}:label=label")


def test_millions_of_rows_in_a_small_file_are_held_against_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 2_000_000
    spec = _write(tmp_path, pa.nulls(rows, pa.binary()), pa.repeat(0, rows), compression="zstd")
    assert (tmp_path / "train.parquet").stat().st_size < 50_000
    monkeypatch.setattr("afftool.environment.available_bytes", lambda: 10_000_000)
    with pytest.raises(DataError, match=r"the labels of 2,000,000 rows need 64.0 MB of memory, and 10.0 MB are free"):
        load(spec)


def test_images_in_a_dictionary_are_not_spread_out(tmp_path: Path) -> None:
    """Of 500 rows of one image of 77 kB, a file of not much more, no more than some are in memory at a time."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8))
    stream = io.BytesIO()
    noise.save(stream, "png")
    cells = pa.array([{"bytes": stream.getvalue(), "path": None}], STRUCT).take(pa.array(np.zeros(500, np.int64)))
    spec = _write(tmp_path, cells, pa.array(np.arange(500) % 2), compression="zstd")
    del cells
    pool = pa.system_memory_pool()
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        splits = load(f"{spec}:size=4", train_images=2)
    finally:
        pa.set_memory_pool(before)
    assert len(splits.train) == 2
    assert pool.max_memory() < 4_000_000


def test_every_form_of_a_column_is_read_alike(tmp_path: Path) -> None:
    """With a dictionary, without, with one that was given up halfway, in groups of rows, in large types, as bytes."""
    cells = [{"bytes": _png(i % 7), "path": f"{i}.png"} for i in range(300)]
    labels = [i % 3 for i in range(300)]
    large = pa.array(cells, pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())]))
    plain = pa.array([cell["bytes"] for cell in cells], pa.binary())
    specs = [
        _write(tmp_path / "dictionary", cells, labels),
        _write(tmp_path / "none", cells, labels, use_dictionary=False),
        _write(tmp_path / "half", cells, labels, dictionary_pagesize_limit=200, data_page_size=100),
        _write(tmp_path / "groups", cells, labels, row_group_size=70),
        _write(tmp_path / "large", large, labels),
        _write(tmp_path / "bytes", plain, labels),
    ]
    assert len({load(spec, train_images=99).fingerprint for spec in specs}) == 1
    assert [int(image.max()) for image in load(specs[0]).train.images] == [i % 7 for i in range(300)]


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="the shared CIFAR-10 folder is not here")
def test_real_cifar10_is_read_to_the_bit_as_ever() -> None:
    splits = load(f"parquet:{CIFAR10}", train_images=10)
    cells = pq.read_table(CIFAR10 / "test.parquet", columns=["img"]).column("img")
    for row in range(0, 10_000, 500):
        image = Image.open(io.BytesIO(cells[row].as_py()["bytes"])).convert("RGB")
        np.testing.assert_array_equal(splits.test.images[row].transpose(1, 2, 0), np.asarray(image))


@pytest.mark.parametrize(
    "metadata", ["[" * 100_000, '{"info": NaN}', "9" * 5000, '{"info": {"features": []}}', b"\xff\xfe"]
)
def test_class_names_of_nonsense_are_passed_over(metadata: Any, tmp_path: Path) -> None:
    table = pa.table({"image": pa.array(_inline(2), STRUCT), "label": [0, 1]})
    for part in ("train", "test"):
        pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / f"{part}.parquet")
    assert load(f"parquet:{tmp_path}").classes == ("0", "1")


def test_more_class_names_than_rows_are_refused(tmp_path: Path) -> None:
    features = {"label": {"names": [f"c{i}" for i in range(50_000)], "_type": "ClassLabel"}}
    table = pa.table({"image": pa.array(_inline(2), STRUCT), "label": [0, 1]})
    for part in ("train", "test"):
        packed = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(packed, tmp_path / f"{part}.parquet")
    with pytest.raises(DataError, match=r"no training image of class 'c2' \(49998 of 50000 classes are empty\)"):
        load(f"parquet:{tmp_path}")


@pytest.mark.parametrize("at", range(8, 400, 23))
def test_a_parquet_file_with_bytes_overwritten_is_read_or_refused(at: int, tmp_path: Path) -> None:
    spec = _write(tmp_path, _inline(3), [0, 1, 2])
    path = tmp_path / "train.parquet"
    raw = bytearray(path.read_bytes())
    raw[-at : -at + 4 or None] = b"\xff\xff\xff\x7f"
    path.write_bytes(raw)
    with contextlib.suppress(UserError):
        load(spec)
