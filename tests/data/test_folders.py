"""Image folders and mask folders: what is read, and what a broken one is told."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from afftool.data import load
from afftool.errors import DataError, UserError

Image = pytest.importorskip("PIL.Image")
CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid"


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _picture(seed: int, size: tuple[int, int] = (6, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for split, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                _save(tmp_path / split / name / f"{i}.png", _picture(100 * label + i + (50 if split == "test" else 0)))
    return tmp_path


@pytest.fixture
def street(tmp_path: Path) -> Path:
    for split, count in (("train", 4), ("test", 2)):
        for i in range(count):
            _save(tmp_path / split / "images" / f"{i}.png", _picture(i))
            _save(tmp_path / split / "masks" / f"{i}.png", np.arange(48, dtype=np.uint8).reshape(6, 8) % 3)
    return tmp_path


def test_a_folder_is_read_by_class_and_name(pets: Path) -> None:
    splits = load(f"folder:{pets}")
    assert splits.classes == ("cat", "dog")
    assert splits.train.labels.tolist() == [0] * 6 + [1] * 6
    np.testing.assert_array_equal(splits.train.images[7], _picture(101).transpose(2, 0, 1))
    assert load(f"folder:{pets}", train_images=4).train.labels.tolist() == [0, 0, 1, 1]


def test_val_is_a_third_split_or_stands_in_for_test(pets: Path) -> None:
    shutil.copytree(pets / "test", pets / "val")
    both = load(f"folder:{pets}")
    assert both.val is not None
    shutil.rmtree(pets / "test")
    only = load(f"folder:{pets}")
    assert only.val is None
    np.testing.assert_array_equal(only.test.images, both.val.images)


def test_grey_palette_and_transparent_pictures_become_colour(pets: Path) -> None:
    Image.fromarray(_picture(3)).convert("L").save(pets / "train" / "cat" / "0.png")
    Image.fromarray(_picture(3)).convert("P").save(pets / "train" / "cat" / "1.png")
    Image.fromarray(_picture(3)).convert("RGBA").save(pets / "train" / "cat" / "2.png")
    images = load(f"folder:{pets}").train.images
    assert (images[0, 0] == images[0, 1]).all()
    np.testing.assert_array_equal(images[2], _picture(3).transpose(2, 0, 1))


def test_pictures_of_several_sizes_are_resized_when_asked(pets: Path) -> None:
    _save(pets / "train" / "dog" / "5.png", _picture(0, (10, 10)))
    with pytest.raises(DataError, match=r"0.png is 6x8") as caught:
        load(f"folder:{pets}")
    assert "5.png 10x10" in caught.value.message
    assert ":size=" in (caught.value.hint or "")
    assert load(f"folder:{pets}:size=5x7").train.images.shape[2:] == (5, 7)


def _remove(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def _empty(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        shutil.rmtree(root / name)
        (root / name).mkdir()

    return change


def _cut(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).write_bytes((root / name).read_bytes()[:60])

    return change


def _mask(values: np.ndarray, name: str = "train/masks/1.png") -> Callable[[Path], None]:
    return lambda root: _save(root / name, values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_remove("train"), r"has no train/ folder; it holds test"),
        (_remove("test"), r"has no test/ or val/ folder"),
        (_empty("train"), r"train has no class folders"),
        (_empty("train/dog"), r"class 'dog' has no images: .*train.dog is empty"),
        (_empty("test/cat"), r"class 'cat' has no images: .*test.cat is empty"),
        (_remove("test/cat"), r"class 'cat' has no images: .*test.cat is missing"),
        (lambda root: (root / "test" / "cow").mkdir(), r"test.cow is a class that train/ does not have"),
        (_cut("train/cat/3.png"), r"train.cat.3.png cannot be used"),
        (lambda root: (root / "test" / "dog" / "0.png").write_bytes(b""), r"test.dog.0.png cannot be used"),
        (lambda root: shutil.rmtree(root), r"does not exist"),
    ],
)
def test_a_broken_folder_is_explained(pets: Path, change: Callable[[Path], object], message: str) -> None:
    change(pets)
    with pytest.raises(DataError, match=message) as caught:
        load(f"folder:{pets}")
    assert caught.value.hint
    assert str(pets) in caught.value.message


def test_masks_are_read_with_the_classes_found_in_them(street: Path) -> None:
    splits = load(f"masks:{street}")
    assert splits.mask_classes == ("0", "1", "2")
    assert splits.void is None
    assert splits.train.labels is None
    np.testing.assert_array_equal(splits.train.masks[0], np.arange(48).reshape(6, 8) % 3)
    assert len(load(f"masks:{street}", train_images=2).train) == 2


def test_mask_folders_are_not_mistaken_for_two_classes(street: Path) -> None:
    with pytest.raises(DataError, match="images and masks") as caught:
        load(f"folder:{street}")
    assert f"masks:{street}" in (caught.value.hint or "")


def test_class_names_come_from_a_file_where_there_is_one(street: Path) -> None:
    (street / "classes.txt").write_text("road\ncar\ntree\n")
    assert load(f"masks:{street}").mask_classes == ("road", "car", "tree")


def test_resized_masks_keep_their_labels(street: Path) -> None:
    splits = load(f"masks:{street}:size=13x17")
    assert splits.train.images.shape[2:] == splits.train.masks.shape[1:] == (13, 17)
    assert set(np.unique(splits.train.masks)) == {0, 1, 2}


def test_palette_masks_are_read_by_index(street: Path) -> None:
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) % 3)
    picture.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    picture.save(street / "train" / "masks" / "0.png")
    np.testing.assert_array_equal(load(f"masks:{street}").train.masks[0], np.arange(48).reshape(6, 8) % 3)


def test_a_declared_void_label_is_no_class(street: Path) -> None:
    _mask(np.full((6, 8), 255, np.uint8))(street)
    splits = load(f"masks:{street}:void=255")
    assert splits.mask_classes == ("0", "1", "2")
    assert splits.void == 255


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (_mask(np.full((6, 8), 9, np.uint8)), "", r"1.png has label 9, but no training mask has label 3"),
        (_mask(np.full((6, 8), 3, np.uint8)), ":classes=3", r"1.png has label 3; the classes are 0 to 2, none is void"),
        (_mask(np.full((6, 8), 4, np.uint8)), ":classes=3:void=3", r"1.png has label 4; .* 3 is void"),
        (_mask(np.full((6, 8), 5, np.uint8), "test/masks/0.png"), "", r"test.masks.0.png has label 5"),
        (lambda root: None, ":classes=3:void=1", "void label 1 is one of the classes"),
        (lambda root: None, ":classes=300", "300 classes are more than a mask can hold, where 0 to 254"),
        (lambda root: None, ":classes=256:void=255", "256 classes are more"),
        (lambda root: (root / "classes.txt").write_text("a\n" * 256), "", "classes.txt: 256 classes are more"),
        (lambda root: None, ":void=256", "no mask can hold the void label 256"),
        (_mask(np.zeros((6, 8, 3), np.uint8)), "", r"1.png cannot be used: it is a RGB picture"),
        (_mask(np.full((6, 8), 3000, np.uint16)), "", r"1.png cannot be used: it has labels up to 3000"),
        (_mask(np.zeros((6, 9), np.uint8)), ":classes=3", "images differ in size: .*0.png is 6x8, .*1.png 6x9"),
        (_remove("train/masks/2.png"), "", r"train.images.2.png has no mask \(1 of 4"),
        (_remove("test/images/1.png"), "", r"test.masks.1.png has no image"),
        (_remove("train/masks"), "", r"train has no masks/ folder"),
        (_empty("train/images"), "", r"train.images has no images"),
        (_cut("train/masks/0.png"), "", r"train.masks.0.png cannot be used"),
        (_remove("test"), "", r"has no test/ or val/ folder"),
    ],
)
def test_broken_masks_are_explained(street: Path, change: Callable[[Path], object], options: str, message: str) -> None:
    change(street)
    with pytest.raises(DataError, match=message) as caught:
        load(f"masks:{street}{options}")
    assert caught.value.hint


def test_255_is_void_by_convention_where_none_was_given_and_that_is_said(street: Path) -> None:
    plain = load(f"masks:{street}")
    _mask(np.array([[0, 1, 2, 255] * 2] * 6, np.uint8), "test/masks/1.png")(street)
    assumed, given = load(f"masks:{street}"), load(f"masks:{street}:void=255")
    assert (assumed.mask_classes, assumed.void) == (("0", "1", "2"), 255)
    assert "255 in the masks is taken as void" in assumed.note
    assert (plain.void, plain.note, given.note) == (None, "", "")
    assert assumed.fingerprint == given.fingerprint  # cells trained under either are the same
    _mask(np.array([[0, 1, 2, 255] * 2] * 6, np.uint8))(street)
    for options in ("", ":classes=3", ":classes=255"):
        assert load(f"masks:{street}{options}").void == 255
    with pytest.raises(DataError, match=r"has label 255; the classes are 0 to 2, 3 is void") as caught:
        load(f"masks:{street}:classes=3:void=3")
    assert "classes=256" not in (caught.value.hint or "")


@pytest.mark.parametrize("options", ["", ":classes=2"])
def test_masks_in_black_and_white_do_not_lose_their_foreground_as_void(street: Path, options: str) -> None:
    for part, count in (("train", 4), ("test", 2)):
        for i in range(count):
            _mask(np.array([[0, 255] * 4] * 6, np.uint8), f"{part}/masks/{i}.png")(street)
    with pytest.raises(DataError, match=r"hold .0. alone: is 255 a class here") as caught:
        load(f"masks:{street}{options}")
    assert "write the class as 1" in (caught.value.hint or "")
    assert load(f"masks:{street}:void=255").mask_classes == ("0",)


def _nested(root: Path, part: str, name: str, seed: int, label: int) -> None:
    _save(root / part / "images" / f"{name}.png", _picture(seed))
    _save(root / part / "masks" / f"{name}.png", np.full((6, 8), label, np.uint8))


def test_images_of_one_name_in_several_folders_are_all_read_with_their_own_masks(street: Path) -> None:
    for part in ("train", "test"):
        shutil.rmtree(street / part)
        for town in range(3):
            for i in range(2):
                _nested(street, part, f"c{town}/{i}", 10 * town + i, town)
    train = load(f"masks:{street}").train
    assert [int(mask[0, 0]) for mask in train.masks] == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(train.images[3], _picture(11).transpose(2, 0, 1))
    (street / "train" / "masks" / "c1" / "1.png").rename(street / "train" / "masks" / "1.png")
    with pytest.raises(DataError, match=r"masks.1.png has no image \(2 of 7") as caught:
        load(f"masks:{street}")
    assert "in a folder of the same name" in (caught.value.hint or "")


def test_nested_images_whose_stems_differ_are_read_as_if_they_lay_flat(street: Path) -> None:
    flat = load(f"masks:{street}").fingerprint
    for part in ("train", "test"):
        for kind in ("images", "masks"):
            for i in range(2):
                (street / part / kind / f"z{i}").mkdir()
                (street / part / kind / f"{i}.png").rename(street / part / kind / f"z{i}" / f"{i}.png")
    assert load(f"masks:{street}").fingerprint == flat


def test_two_images_with_one_stem_are_not_read_as_one(street: Path) -> None:
    _save(street / "train" / "images" / "1.bmp", _picture(9))
    with pytest.raises(DataError, match=r"1.bmp and .*1.png differ in their ending alone"):
        load(f"masks:{street}")


def test_every_pixel_void_is_no_data(street: Path) -> None:
    for i in range(4):
        _mask(np.full((6, 8), 7, np.uint8), f"train/masks/{i}.png")(street)
    with pytest.raises(DataError, match="is void"):
        load(f"masks:{street}:void=7")


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the shared CamVid folder is not here")
def test_camvid_is_known_by_its_file_names() -> None:
    splits = load(f"masks:{CAMVID}:size=36x48", train_images=5)
    assert [len(split) for _, split in splits] == [5, 101, 233]
    assert splits.mask_classes[8] == "car"
    assert splits.void == 11
    assert "Brostow" in splits.citation
    assert splits.test.masks.max() == 11


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the shared CamVid folder is not here")
def test_a_label_beyond_camvids_classes_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for kind in ("images", "masks"):
            source = sorted((CAMVID / split / kind).iterdir())[0]
            (tmp_path / split / kind).mkdir(parents=True)
            shutil.copy(source, tmp_path / split / kind)
    mask = next((tmp_path / "train" / "masks").iterdir())
    _save(mask, np.full((180, 240), 12, np.uint8))
    with pytest.raises(UserError, match="has label 12; the classes are 0 to 10, 11 is void"):
        load(f"masks:{tmp_path}")
