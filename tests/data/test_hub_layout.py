"""Parquet in the hub's layout, and the hub's own library on a small local dataset."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afftool.data import load
from afftool.data.splits import choose
from afftool.errors import DataError, UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")
CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


def _png(seed: int, size: tuple[int, int] = (6, 8)) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(_pixels(seed, size)).save(stream, "png")
    return stream.getvalue()


def _pixels(seed: int, size: tuple[int, int] = (6, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def _table(cells: list[Any], labels: list[Any], names: list[str] | None = None, **columns: list[Any]) -> Any:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    arrays = {"image": pa.array(cells, kind), "label": pa.array(labels, pa.int64())}
    table = pa.table(arrays | {name: pa.array(values) for name, values in columns.items()})
    if names is None:
        return table
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _cells(count: int, start: int = 0) -> list[Any]:
    return [{"bytes": _png(start + i), "path": None} for i in range(count)]


def _write(root: Path, train: Any = None, test: Any = None) -> Path:
    root.mkdir(exist_ok=True)
    names = ["ant", "bee"]
    train = train if train is not None else _table(_cells(12), [i % 2 for i in range(12)], names)
    test = test if test is not None else _table(_cells(4, 100), [0, 1, 0, 1], names)
    pq.write_table(train, root / "train-00000-of-00001.parquet", row_group_size=5)
    pq.write_table(test, root / "test-00000-of-00001.parquet")
    return root


def test_parquet_gives_images_labels_and_class_names(tmp_path: Path) -> None:
    splits = load(f"parquet:{_write(tmp_path / 'data').parent}")
    assert splits.classes == ("ant", "bee")
    assert splits.train.labels.tolist() == [i % 2 for i in range(12)]
    for i in range(12):
        np.testing.assert_array_equal(splits.train.images[i], _pixels(i).transpose(2, 0, 1))


def test_a_subset_reads_its_own_rows_across_row_groups_and_files(tmp_path: Path) -> None:
    root = _write(tmp_path)
    pq.write_table(_table(_cells(6, 12), [0, 1] * 3, ["ant", "bee"]), root / "train-00001-of-00002.parquet")
    whole, some = load(f"parquet:{root}"), load(f"parquet:{root}", train_images=6)
    assert len(whole.train) == 18
    assert np.bincount(some.train.labels).tolist() == [3, 3]
    known = {image.tobytes(): int(label) for image, label in zip(whole.train.images, whole.train.labels, strict=True)}
    assert [known[image.tobytes()] for image in some.train.images] == some.train.labels.tolist()


def test_only_the_rows_asked_for_are_decoded(tmp_path: Path) -> None:
    labels = np.array([0] * 6 + [1] * 6)
    chosen = set(choose(labels, 2, 0, "parquet").tolist())
    cells = [{"bytes": _png(i) if i in chosen else b"broken", "path": None} for i in range(12)]
    root = _write(tmp_path, _table(cells, labels.tolist(), ["ant", "bee"]))
    assert len(load(f"parquet:{root}", train_images=2).train) == 2
    with pytest.raises(DataError, match="cannot be used"):
        load(f"parquet:{root}", train_images=3)


def test_images_by_path_are_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(_png(i))
    cells = [{"bytes": None, "path": f"pictures/{i}.png"} for i in range(4)]
    splits = load(f"parquet:{_write(tmp_path, _table(cells, [0, 1, 0, 1], ['ant', 'bee']))}")
    np.testing.assert_array_equal(splits.train.images[3], _pixels(3).transpose(2, 0, 1))


def test_columns_without_metadata_are_told_by_kind_and_name(tmp_path: Path) -> None:
    train = _table(_cells(6), [0, 1, 2] * 2, None, id=list(range(6)))
    test = _table(_cells(3), [0, 1, 2], None, id=list(range(3)))
    assert load(f"parquet:{_write(tmp_path, train, test)}").classes == ("0", "1", "2")


def test_columns_can_be_named(tmp_path: Path) -> None:
    train = _table(_cells(6), [0] * 6, None, kind=[0, 1] * 3, size=[3] * 6).drop_columns("label")
    test = _table(_cells(2), [0] * 2, None, kind=[0, 1], size=[3] * 2).drop_columns("label")
    root = _write(tmp_path, train, test)
    with pytest.raises(DataError, match="which column is the label"):
        load(f"parquet:{root}")
    assert load(f"parquet:{root}:label=kind").train.labels.tolist() == [0, 1] * 3
    with pytest.raises(DataError, match="no column 'sort'"):
        load(f"parquet:{root}:label=sort")


def _train(cells: list[Any], labels: list[Any], names: list[str] | None = None) -> Callable[[Path], object]:
    return lambda root: pq.write_table(_table(cells, labels, names), root / "train-00000-of-00001.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: [path.unlink() for path in root.iterdir()], r"has no train\*.parquet; it holds nothing"),
        (lambda root: (root / "test-00000-of-00001.parquet").unlink(), r"has no test\*.parquet or val"),
        (lambda root: (root / "train-00000-of-00001.parquet").write_bytes(b"PAR1"), "no whole Parquet file"),
        (
            lambda root: (root / "test-00000-of-00001.parquet").write_bytes(
                (root / "test-00000-of-00001.parquet").read_bytes()[:-9]
            ),
            "test-00000-of-00001.parquet is no whole Parquet file",
        ),
        (_train(_cells(4), [0, 1, 2, 1], ["ant", "bee"]), "row 2 has label 2, the classes are 0 to 1"),
        (_train(_cells(2), [0, None], ["ant", "bee"]), "row 1 has label None"),
        (_train(_cells(2), [0, -1], ["ant", "bee"]), "row 1 has label -1"),
        (_train(_cells(2), [1, 1], ["ant", "bee"]), "no training image of class 'ant'"),
        (_train([], [], ["ant", "bee"]), "has no rows"),
        (_train([*_cells(1), {"bytes": b"junk", "path": None}], [0, 1], ["ant", "bee"]), "row 1 cannot be used"),
        (_train([*_cells(1), None], [0, 1], ["ant", "bee"]), "row 1 holds no image"),
        (_train([*_cells(1), {"bytes": None, "path": "gone.png"}], [0, 1], ["ant", "bee"]), "gone.png is missing"),
        (_train([*_cells(1), {"bytes": _png(1, (4, 4)), "path": None}], [0, 1], ["a", "b"]), "differ in size"),
    ],
)
def test_broken_parquet_is_explained(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    root = _write(tmp_path)
    change(root)
    with pytest.raises(DataError, match=message) as caught:
        load(f"parquet:{root}")
    assert caught.value.hint


def test_several_datasets_under_one_path_are_not_mixed(tmp_path: Path) -> None:
    _write(tmp_path / "one")
    _write(tmp_path / "two")
    with pytest.raises(DataError, match="several datasets"):
        load(f"parquet:{tmp_path}")
    assert len(load(f"parquet:{tmp_path / 'one'}").train) == 12


LAYOUTS = {
    "the hub's conversion": ("plain/train/0000.parquet", "plain/test/0000.parquet", "plain/validation/0000.parquet"),
    "folders alone": ("train/part-0.parquet", "test/part-0.parquet", "valid/part-0.parquet"),
    "a configuration in the name": ("x-train.parquet", "x-test.parquet", "x-validation.parquet"),
    "a configuration and shards": (
        *("data/my_set-train-00000-of-00001.parquet", "data/my_set-test-00000-of-00001.parquet"),
        "data/my_set-val-00000-of-00001.parquet",
    ),
    "a configuration named as a split": ("test-it-train.parquet", "test-it-test.parquet", "test-it-val.parquet"),
}


def _lay(root: Path, train: str, *rest: str) -> Path:
    """The same data as `_write` makes, under other names; a third name is a copy of the test split."""
    made = _write(root.parent / "made")
    for name in (train, *rest):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        source = "train" if name == train else "test"
        (root / name).write_bytes((made / f"{source}-00000-of-00001.parquet").read_bytes())
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_are_told_by_folder_or_by_a_word_of_the_name(layout: str, tmp_path: Path) -> None:
    train, test, val = LAYOUTS[layout]
    plain = load(f"parquet:{_write(tmp_path / 'plain')}")
    both = load(f"parquet:{_lay(tmp_path / 'both', train, test)}")
    assert (both.fingerprint, both.val) == (plain.fingerprint, None)
    assert load(f"parquet:{_lay(tmp_path / 'only', train, val)}").fingerprint == plain.fingerprint
    three = load(f"parquet:{_lay(tmp_path / 'three', train, test, val)}")
    assert three.val is not None
    assert three.fingerprint != plain.fingerprint


def test_plain_names_are_read_alone_where_they_are_all_there(tmp_path: Path) -> None:
    root = _write(tmp_path / "data")
    alone = load(f"parquet:{root}").fingerprint
    _lay(root, "old-train.parquet", "old-val.parquet", "validation/0000.parquet")
    assert load(f"parquet:{root}").fingerprint == alone


def test_several_configurations_of_the_hub_are_not_mixed(tmp_path: Path) -> None:
    root = _lay(tmp_path / "data", "fine/train/0000.parquet", "fine/test/0000.parquet", "coarse/test/0000.parquet")
    with pytest.raises(DataError, match="several datasets") as caught:
        load(f"parquet:{root}")
    assert f"{root / 'coarse'}, {root / 'fine'}" in caught.value.message
    assert len(load(f"parquet:{root / 'fine'}").train) == 12


def test_half_a_split_of_the_hub_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    root = _lay(tmp_path / "data", "plain/partial-train/0000.parquet", "plain/test/0000.parquet")
    with pytest.raises(DataError, match=r"has no train\*.parquet"):
        load(f"parquet:{root}")


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="the shared CIFAR-10 folder is not here")
def test_real_cifar10_is_read_stratified() -> None:
    splits = load(f"parquet:{CIFAR10}", train_images=500)
    assert splits.train.images.shape == (500, 3, 32, 32)
    assert np.bincount(splits.train.labels).tolist() == [50] * 10
    assert len(splits.test) == 10000
    assert splits.classes[:2] == ("airplane", "automobile")
    assert "Krizhevsky" in splits.citation


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True, raising=False)
    return _write(tmp_path / "local")


def test_a_local_hub_dataset_equals_its_parquet_files(local_hub: Path) -> None:
    through, directly = load(f"hub:{local_hub}"), load(f"parquet:{local_hub}")
    assert through.fingerprint == directly.fingerprint
    assert load(f"hub:{local_hub}", train_images=4).train.labels.tolist().count(0) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [("{}:label=sort", "no column 'sort'"), ("no/such", "could not load it"), ("{}:config=x", "could not load it")],
)
def test_a_hub_dataset_that_cannot_be_used_is_explained(local_hub: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load("hub:" + name.format(local_hub))
    assert caught.value.hint
