"""The procedural set: what it promises about sizes, classes, masks, bands and bits."""

import subprocess
import sys

import numpy as np
import pytest

from afftool.data import load
from afftool.data.shapes import _CHUNK, CLASSES, band_edges, draw
from afftool.errors import DataError


def test_labels_masks_and_bands_come_from_one_object() -> None:
    split = draw(400, size=32, seed=3, stream=0)
    assert split.labels is not None
    assert split.masks is not None
    for label, mask in zip(split.labels, split.masks, strict=True):
        assert set(np.unique(mask)) == {0, label + 1}


def test_every_object_lies_in_its_size_band() -> None:
    split = draw(800, size=32, seed=0, stream=0)
    edges = band_edges(32)
    assert edges[0][0] == 3
    assert edges[-1][1] == 32
    assert [low for low, _ in edges[1:]] == [high + 1 for _, high in edges[:-1]]
    largest = [0] * 4
    smallest = [99] * 4
    for band, mask in zip(split.bands, split.masks, strict=True):
        for axis in (0, 1):
            on = np.flatnonzero(mask.any(axis=axis))
            extent = on[-1] - on[0] + 1
            assert edges[band][0] <= extent <= edges[band][1]
            largest[band], smallest[band] = max(largest[band], extent), min(smallest[band], extent)
    assert (smallest[0], largest[3]) == (3, 32)  # the whole range is used: 3 pixels to the whole image


def test_the_ten_glyphs_differ_at_three_pixels_and_however_they_are_mirrored() -> None:
    split = draw(4000, size=32, seed=1, stream=0)
    outlines: dict[bytes, set[int]] = {}
    for label, mask in zip(split.labels, split.masks, strict=True):
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == len(cols) == 3:
            patch = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] > 0
            for seen in (patch, patch[:, ::-1]):
                outlines.setdefault(np.ascontiguousarray(seen).tobytes(), set()).add(int(label))
    assert all(len(labels) == 1 for labels in outlines.values())
    assert {next(iter(labels)) for labels in outlines.values()} == set(range(len(CLASSES)))


def test_classes_and_bands_are_balanced_for_any_number_of_images() -> None:
    for count in (40, 400, 437):
        split = load("shapes:test=40", train_images=count).train
        assert len(split) == count
        pairs = np.bincount(split.labels * 4 + split.bands, minlength=40)
        assert pairs.max() - pairs.min() <= 1


def test_the_first_images_are_the_same_however_many_are_drawn() -> None:
    few, many = draw(30, size=32, seed=5, stream=0), draw(_CHUNK + 30, size=32, seed=5, stream=0)
    np.testing.assert_array_equal(few.images, many.images[:30])
    np.testing.assert_array_equal(few.masks, many.masks[:30])


def test_seeds_and_splits_draw_different_images() -> None:
    first = load("shapes:train=40:test=40", seed=0)
    other = load("shapes:train=40:test=40", seed=1)
    assert not np.array_equal(first.train.images, other.train.images)
    assert not np.array_equal(first.train.images, first.test.images)
    assert first.fingerprint != other.fingerprint


def test_another_process_draws_the_same_bits() -> None:
    code = "from afftool.data import load; print(load('shapes:train=60:test=40', seed=7).fingerprint)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == load("shapes:train=60:test=40", seed=7).fingerprint


def test_the_bits_stay_what_they_were_when_results_were_committed() -> None:
    assert load("shapes:train=60:test=40", seed=0).fingerprint == "3910aed48fc0356c"


def test_background_alone_does_not_give_the_class_away() -> None:
    split = draw(2000, size=32, seed=2, stream=0)
    background = (
        np.where(split.masks[:, None] == 0, split.images, 0).sum((2, 3)) / (split.masks == 0).sum((1, 2))[:, None]
    )
    spread = background.mean(1)
    means = np.array([spread[split.labels == label].mean() for label in range(10)])
    assert means.std() < 4 * spread.std() / np.sqrt(200)


def test_other_image_sizes_scale_their_bands() -> None:
    splits = load("shapes:size=48:train=40:test=40")
    assert splits.train.images.shape == (40, 3, 48, 48)
    assert splits.bands[-1].endswith("-48px")
    with pytest.raises(DataError, match="too small"):
        load("shapes:size=8")
