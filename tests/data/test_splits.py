"""Subsets, fingerprints and the checks every source passes through; the text form of `--data`."""

import os
import subprocess
import sys

import numpy as np
import pytest

from afftool import catalog
from afftool.data import DataSpec, load
from afftool.data.splits import Split, Splits, choose, choose_any
from afftool.errors import DataError, SpecError, UnknownKey, UnknownName, UserError


def _split(count: int = 6, classes: int = 2, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 3, 4, 5), dtype=np.uint8)
    return Split(images=images, labels=np.arange(count) % classes)


def _splits(**changes: object) -> Splits:
    fields = {"name": "made-up", "train": _split(), "test": _split(seed=1), "classes": ("a", "b")}
    return Splits(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_subset_keeps_the_share_of_every_class() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    assert np.bincount(labels[choose(labels, 100, 0, "x")]).tolist() == [60, 30, 10]
    for count in (3, 7, 33, 999, 1000):
        counts = np.bincount(labels[choose(labels, count, 0, "x")])
        assert counts.sum() == count
        assert counts.min() >= 1
        assert np.abs(counts - np.array([0.6, 0.3, 0.1]) * count).max() <= 2


def test_a_rare_class_is_never_lost_and_never_overdrawn() -> None:
    labels = np.repeat([0, 1, 2], [990, 9, 1])
    assert np.bincount(labels[choose(labels, 10, 0, "x")]).tolist() == [8, 1, 1]
    assert np.bincount(labels[choose(labels, 999, 0, "x")])[2] == 1


def _one_by_one(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A stratified subset as it was drawn at first: the shares rounded one image at a time."""
    classes, sizes = np.unique(labels, return_counts=True)
    ideal = sizes * (count / len(labels))
    quota = np.maximum(np.floor(ideal).astype(np.int64), 1)
    rng = np.random.default_rng([seed, count])
    tie = rng.permutation(len(classes))
    while (missing := count - int(quota.sum())) != 0:
        room = quota < sizes if missing > 0 else quota > 1
        gap = np.where(room, ideal - quota if missing > 0 else quota - ideal, -np.inf)
        quota[np.lexsort((tie, -gap))[0]] += 1 if missing > 0 else -1
    picked = [rng.permutation(np.flatnonzero(labels == label))[:n] for label, n in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(picked))


def test_a_subset_is_the_same_as_ever() -> None:
    rng = np.random.default_rng(0)
    for seed in range(300):
        classes = int(rng.integers(1, 30))
        labels = rng.choice(classes, int(rng.integers(1, 200)), p=rng.dirichlet(np.full(classes, 0.4)))
        count = int(rng.integers(len(np.unique(labels)), len(labels) + 1))
        np.testing.assert_array_equal(choose(labels, count, seed, "x"), _one_by_one(labels, count, seed))


def test_a_subset_of_very_many_classes_is_drawn_at_once() -> None:
    labels = np.arange(200_000) % 60_000
    assert len(np.unique(labels[choose(labels, 100_000, 0, "x")])) == 60_000


def test_a_subset_is_ascending_seeded_and_without_repeats() -> None:
    labels = np.arange(200) % 4
    first, again, other = choose(labels, 40, 0, "x"), choose(labels, 40, 0, "x"), choose(labels, 40, 1, "x")
    assert (np.diff(first) > 0).all()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (np.diff(choose_any(200, 40, 0, "x")) > 0).all()


@pytest.mark.parametrize("count", [201, 3])
def test_a_subset_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(DataError, match="--train-images"):
        choose(np.arange(200) % 4, count, 0, "x")


def test_equal_content_has_equal_fingerprints_and_any_change_shows() -> None:
    first = _splits()
    assert first.fingerprint == _splits(name="elsewhere").fingerprint
    changed = _split()
    changed.images[3, 1, 2, 0] ^= 1
    assert first.train.labels is not None
    swapped = Split(images=first.train.images, labels=first.train.labels[::-1].copy())
    fingerprints = [_splits(train=changed), _splits(train=swapped), _splits(classes=("a", "c")), _splits(val=_split())]
    assert len({first.fingerprint, *(s.fingerprint for s in fingerprints)}) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": Split(images=np.zeros((0, 3, 4, 5), np.uint8), labels=np.zeros(0, np.int64))}, "empty"),
        ({"train": Split(images=np.zeros((2, 1, 4, 5), np.uint8), labels=np.zeros(2, np.int64))}, "images are"),
        ({"test": Split(images=np.zeros((2, 3, 8, 5), np.uint8), labels=np.zeros(2, np.int64))}, "8x5"),
        ({"test": Split(images=np.zeros((2, 3, 4, 5), np.uint8), labels=np.zeros(3, np.int64))}, "labels are"),
        ({"test": Split(images=np.zeros((2, 3, 4, 5), np.uint8))}, "neither labels nor masks"),
        ({"test": _split(classes=3)}, "label 2"),
        ({"classes": ("a", "b", "c")}, "no training image of class 'c'"),
        (
            {"test": Split(images=np.zeros((1, 3, 4, 5), np.uint8), masks=np.full((1, 4, 5), 9, np.uint8)), "void": 8},
            "label 9",
        ),
    ],
)
def test_inconsistent_data_is_never_built(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        _splits(**changes)
    assert caught.value.hint


def test_digits_are_real_stratified_and_split_once() -> None:
    whole, few = load("digits"), load("digits", train_images=200, seed=3)
    assert whole.train.images.shape == (1437, 3, 8, 8)
    assert len(whole.test) == 360
    assert np.bincount(few.train.labels).min() >= 19
    np.testing.assert_array_equal(whole.test.images, few.test.images)
    assert load("digits:size=16").train.images.shape[2:] == (16, 16)
    train = {image.tobytes() for image in whole.train.images}
    assert sum(image.tobytes() in train for image in whole.test.images) == 0


@pytest.mark.parametrize("text", ["shapes:train=80:test=40", "digits"])
def test_every_offline_source_gives_what_splits_promise(text: str) -> None:
    for _, split in load(text):
        assert split.images.dtype == np.uint8
        assert split.labels is not None
        assert split.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "name", "path", "options"),
    [
        ("shapes", "shapes", None, ()),
        ("shapes:size=64:train=10", "shapes", None, (("size", "64"), ("train", "10"))),
        ("cifar100:some/folder:labels=coarse", "cifar100", "some/folder", (("labels", "coarse"),)),
        (r"folder:C:\data\run=3:size=32", "folder", r"C:\data\run=3", (("size", "32"),)),
        ("parquet:run=3", "parquet", "run=3", ()),
        ("masks:here:classes=11:void=11", "masks", "here", (("classes", "11"), ("void", "11"))),
    ],
)
def test_the_text_form_is_read_and_written_back(
    text: str, name: str, path: str | None, options: tuple[tuple[str, str], ...]
) -> None:
    spec = DataSpec.parse(text)
    assert (spec.name, spec.path, spec.options) == (name, path, options)
    assert DataSpec.parse(spec.text) == spec


def test_an_absolute_spec_means_the_same_from_anywhere() -> None:
    assert DataSpec.parse("folder:here").absolute.path == os.path.join(os.getcwd(), "here")
    assert DataSpec.parse("hub:org/name").absolute.path == "org/name"


@pytest.mark.parametrize(
    ("text", "error", "hint"),
    [
        ("shape", UnknownName, "did you mean 'shapes'"),
        ("shapes:sise=32", UnknownKey, "did you mean 'size'"),
        ("shapes:size=big", SpecError, "for example"),
        ("shapes:size=0", SpecError, "for example"),
        ("shapes:some/path", SpecError, "--data shapes"),
        ("shapes:size=32:size=64", SpecError, "keep one"),
        ("cifar10", SpecError, "cifar10:PATH"),
        ("cifar100:x:labels=super", SpecError, "fine, coarse"),
        ("cifar10:x:labels=fine", UnknownKey, None),
        ("folder:x:size=32x", SpecError, "56x28"),
        ("masks:x:void=", SpecError, "void=VALUE"),
    ],
)
def test_a_text_that_names_no_data_is_explained(text: str, error: type[UserError], hint: str | None) -> None:
    with pytest.raises(error) as caught:
        DataSpec.parse(text)
    assert hint is None or hint in (caught.value.hint or "")


def test_too_few_training_images_are_refused() -> None:
    with pytest.raises(SpecError, match="too few"):
        load("shapes", train_images=0)


@pytest.mark.parametrize("name", catalog.DATASETS)
def test_every_dataset_of_the_catalog_has_a_loader(name: str) -> None:
    from afftool.registry import load as load_object

    assert callable(load_object(catalog.DATASETS[name].loader))
    assert catalog.DATASETS[name].summary


def test_reading_the_text_form_imports_nothing_heavy() -> None:
    code = (
        "import sys; from afftool.data import DataSpec; DataSpec.parse('parquet:x:size=32');"
        "print(sorted({'numpy', 'torch', 'pandas', 'PIL', 'pyarrow'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_describe_shows_a_datasets_path_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    from afftool.cli.describe import describe

    describe("cifar100", 64, None)
    output = capsys.readouterr().out
    assert "--data cifar100:PATH" in output
    assert "superclasses" in output
