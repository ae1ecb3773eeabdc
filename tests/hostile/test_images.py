"""Pictures from elsewhere: read as they are meant, or refused by name; and none takes more memory than it may."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afftool.data import load
from afftool.errors import DataError

Image = pytest.importorskip("PIL.Image")

RAMP = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid"
TURNED = {
    2: COLOURS[:, ::-1],
    3: COLOURS[::-1, ::-1],
    4: COLOURS[::-1],
    5: COLOURS.transpose(1, 0, 2),
    6: np.rot90(COLOURS, -1),
    7: np.rot90(COLOURS, 2).transpose(1, 0, 2),
    8: np.rot90(COLOURS),
}
"""EXIF's orientation -> what `COLOURS`, stored so, is meant to look like."""


def _bytes(image: Any, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _png(width: int, height: int, bits: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: what Pillow would not write."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4) for kind, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _folder(root: Path, picture: bytes, name: str) -> str:
    """A data set of which every image is this one."""
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            (root / part / label / name).write_bytes(picture)
    return f"folder:{root}"


def _masks(root: Path, mask: bytes, name: str = "a.png", image: bytes | None = None) -> str:
    for part in ("train", "test"):
        for kind, raw, called in (("images", image or _png(4, 1, 8, 2, bytes(13)), "a.jpg"), ("masks", mask, name)):
            (root / part / kind).mkdir(parents=True)
            (root / part / kind / called).write_bytes(raw)
    return f"masks:{root}"


def _read(root: Path, picture: bytes, name: str = "a.png") -> np.ndarray:
    """The picture as it would be trained on, `(H, W, 3)`."""
    return load(_folder(root, picture, name)).train.images[0].transpose(1, 2, 0)


def _oriented(kind: str, orientation: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _bytes(Image.fromarray(COLOURS), kind, exif=exif, **options)


DEEP = {
    "png": _bytes(Image.fromarray(RAMP), "PNG"),
    "tif": _bytes(Image.fromarray(RAMP), "TIFF"),
    "big-endian.tif": _bytes(Image.fromarray(RAMP.astype(">u2")), "TIFF"),
    "pgm": b"P5\n64 64\n65535\n" + RAMP.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("name", DEEP)
def test_grey_of_16_bits_keeps_its_levels(name: str, tmp_path: Path) -> None:
    pixels = _read(tmp_path, DEEP[name], f"a.{name}")
    np.testing.assert_array_equal(pixels, np.repeat((RAMP >> 8)[..., None], 3, axis=2))


def test_grey_and_colour_of_16_bits_are_read_alike(tmp_path: Path) -> None:
    colour = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in RAMP)
    np.testing.assert_array_equal(
        _read(tmp_path / "colour", _png(64, 64, 16, 2, colour)), _read(tmp_path / "grey", DEEP["png"])
    )


def test_a_negative_of_16_bits_is_read_as_what_it_shows(tmp_path: Path) -> None:
    negative = _bytes(Image.fromarray(65535 - RAMP), "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(_read(tmp_path, negative, "a.tif")[..., 0], RAMP >> 8)


@pytest.mark.parametrize("pixels", [RAMP / np.float32(65535), RAMP.astype(np.float32), RAMP.astype(np.int32)])
def test_levels_of_32_bits_are_refused_by_name(pixels: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.tif cannot be used: its levels have 32 bits, and which of them is white"):
        _read(tmp_path, _bytes(Image.fromarray(pixels), "TIFF"), "a.tif")


ORDINARY = {
    "bilevel": _bytes(Image.fromarray(RAMP[:8, :8] % 32 > 15), "PNG"),
    "palette": _bytes(Image.fromarray(COLOURS).convert("P"), "PNG"),
    "palette with transparency": _bytes(Image.fromarray(COLOURS).convert("P"), "PNG", transparency=b"\0\x80"),
    "grey and alpha": _bytes(Image.new("LA", (4, 4), (200, 0)), "PNG"),
    "cmyk": _bytes(Image.new("CMYK", (8, 8), (10, 20, 30, 40)), "JPEG"),
    "jpeg": _bytes(Image.fromarray(COLOURS), "JPEG"),
    "a colour profile": _bytes(Image.fromarray(COLOURS), "PNG", icc_profile=b"any"),
    "exif upright": _oriented("JPEG", 1),
    "exif of nonsense": _bytes(Image.fromarray(COLOURS), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "an orientation there is not": _oriented("JPEG", 9),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_pictures_are_read_as_ever(kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    expected = np.asarray(Image.open(io.BytesIO(ORDINARY[kind])).convert("RGB"))
    recwarn.clear()
    np.testing.assert_array_equal(_read(tmp_path, ORDINARY[kind]), expected)
    assert not recwarn.list


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the shared CamVid folder is not here")
def test_a_real_data_set_is_read_to_the_bit_as_ever() -> None:
    test = load(f"masks:{CAMVID}", train_images=1).test
    assert test.masks is not None
    for i, image in list(enumerate(sorted((CAMVID / "test" / "images").iterdir())))[::50]:
        np.testing.assert_array_equal(test.images[i].transpose(1, 2, 0), np.asarray(Image.open(image).convert("RGB")))
        mask = CAMVID / "test" / "masks" / f"{image.stem}.png"
        np.testing.assert_array_equal(test.masks[i], np.asarray(Image.open(mask)))


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(("kind", "name"), [("PNG", "a.png"), ("TIFF", "a.tif"), ("WEBP", "a.webp")])
def test_a_picture_is_turned_upright(kind: str, name: str, orientation: int, tmp_path: Path) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(_read(tmp_path, _oriented(kind, orientation, **options), name), TURNED[orientation])


def test_a_photo_is_turned_before_it_is_resized(tmp_path: Path) -> None:
    raw = _oriented("JPEG", 6)
    pixels = load(_folder(tmp_path, raw, "a.jpg") + ":size=12x8").train.images[0]
    upright = Image.open(io.BytesIO(raw)).convert("RGB").transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(
        pixels.transpose(1, 2, 0), np.asarray(upright.resize((8, 12), Image.Resampling.BILINEAR))
    )


@pytest.mark.parametrize("turned", ["image", "mask"])
def test_where_a_picture_is_turned_its_mask_is_not_guessed_to_be(turned: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    image = _bytes(Image.new("RGB", (4, 1)), "JPEG", **({"exif": exif} if turned == "image" else {}))
    mask = _bytes(Image.new("L", (4, 1)), "PNG", **({"exif": exif} if turned == "mask" else {}))
    with pytest.raises(DataError, match=r"cannot be used: its EXIF orientation says that it is shown turned") as caught:
        load(_masks(tmp_path, mask, image=image) + ":classes=2")
    assert ("a.jpg" if turned == "image" else "a.png") in caught.value.message


FOREIGN = {
    "EPS": _bytes(Image.fromarray(COLOURS), "EPS"),
    "ICO": _bytes(Image.new("RGB", (16, 16)), "ICO"),
    "PDF": _bytes(Image.fromarray(COLOURS), "PDF"),
    "JPEG2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
    "text": b"<html>not found</html>",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_no_other_format_is_opened_by_whatever_name(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    ghostscript = tmp_path / "bin" / "gs"  # Pillow would start what is called so
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent))
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    with pytest.raises(DataError, match=r"a.jpg cannot be used: it is no whole picture in JPEG, PNG, .* or TIFF"):
        _read(tmp_path / "data", FOREIGN[kind], "a.jpg")
    assert not ran.exists()


OTHER = Image.fromarray(COLOURS[::-1].copy())
SEVERAL = {
    "a.gif": _bytes(Image.fromarray(COLOURS), "GIF", save_all=True, append_images=[OTHER]),
    "a.png": _bytes(Image.fromarray(COLOURS), "PNG", save_all=True, append_images=[OTHER]),
    "a.webp": _bytes(Image.fromarray(COLOURS), "WEBP", save_all=True, append_images=[OTHER]),
    "a.tif": _bytes(Image.fromarray(COLOURS), "TIFF", save_all=True, append_images=[OTHER]),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_pictures_in_a_file_none_is_chosen(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{name} cannot be used: it holds several pictures"):
        _read(tmp_path, SEVERAL[name], name)


def test_a_cameras_preview_is_no_second_picture(tmp_path: Path) -> None:
    photo = _bytes(Image.fromarray(COLOURS), "MPO", save_all=True, append_images=[Image.new("RGB", (2, 2))])
    assert _read(tmp_path, photo, "a.jpg").shape == COLOURS.shape


@pytest.mark.parametrize(("kind", "name"), [("JPEG", "a.jpg"), ("PNG", "a.png"), ("TIFF", "a.tif"), ("BMP", "a.bmp")])
def test_a_picture_cut_off_is_refused_by_name(kind: str, name: str, tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    raw = _bytes(noise, kind)
    with pytest.raises(DataError, match=f"{name} cannot be used"):
        _read(tmp_path, raw[: len(raw) // 2], name)


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (13_000, 13_000, "it is 13,000 x 13,000 pixels large; 89,478,485 in all are allowed"),
        (60_000, 60_000, "it has more than twice the 89,478,485 pixels that are allowed"),
    ],
)
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    width: int, height: int, words: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises(DataError, match=f"a.png cannot be used: {words}"):
        _read(tmp_path, _png(width, height, 8, 0, bytes(100)))
    assert not recwarn.list


def test_a_text_in_a_picture_that_explodes_is_refused(tmp_path: Path) -> None:
    text = b"Comment\0\0" + zlib.compress(bytes(70 * 2**20))
    with pytest.raises(DataError, match=r"a.png cannot be used: .*too large"):
        _read(tmp_path, _png(4, 1, 8, 2, bytes(13), (b"zTXt", text)))


MASKS = {
    "8 bits": _png(4, 1, 8, 0, b"\0\0\1\2\3"),
    "4 bits": _png(4, 1, 4, 0, b"\0\x01\x23"),
    "2 bits": _png(4, 1, 2, 0, b"\0\x1b"),
    "16 bits": _png(4, 1, 16, 0, b"\0\0\0\0\1\0\2\0\3"),
    "a palette": _png(4, 1, 2, 3, b"\0\x1b", (b"PLTE", bytes(range(100, 112)))),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_of_any_depth_holds_the_labels_that_were_written(kind: str, tmp_path: Path) -> None:
    masks = load(_masks(tmp_path, MASKS[kind])).train.masks
    assert masks is not None
    assert masks.tolist() == [[[0, 1, 2, 3]]]


@pytest.mark.parametrize(
    ("mask", "name", "words"),
    [
        (_png(4, 1, 16, 0, b"\0\1\0\0\1\0\2\0\3"), "a.png", "it has labels up to 256; 0 to 255 fit"),
        (_png(4, 1, 8, 2, bytes(13)), "a.png", "it is a RGB picture; a mask holds one class number a pixel"),
        (b"P5\n4 1\n3\n\0\1\2\3", "a.pgm", "its labels are levels from 0 to 3, not to 255; write the mask as PNG"),
        (b"P5\n4 1\n999\n" + bytes(8), "a.pgm", "its labels are levels from 0 to 999, not to 255"),
    ],
)
def test_a_mask_whose_labels_would_be_read_wrong_is_refused(mask: bytes, name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{name} cannot be used: {words}"):
        load(_masks(tmp_path, mask, name))
