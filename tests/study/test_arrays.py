"""Crop, flip and mixup of whole batches, labels and masks alike."""

import torch

from afftool.study.arrays import IGNORE, batches
from afftool.study.recipe import recipe


def numbered(count: int, size: int) -> torch.Tensor:
    """Images whose pixels say which image, row and column they are."""
    index = torch.arange(count)[:, None, None].expand(count, size, size)
    rows = torch.arange(size)[None, :, None].expand(count, size, size)
    return torch.stack([index + 1, rows + 1, rows.transpose(1, 2) + 1], dim=-1).to(torch.uint8)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    images, labels, plain = numbered(24, 4), torch.arange(24), recipe("short", batch=8, crop=0, flip=False)
    epochs = [torch.cat([batch.targets for batch in batches(images, labels, plain, 0, epoch)]) for epoch in (0, 0, 1)]
    assert sorted(epochs[0].tolist()) == list(range(24))
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])


def test_an_incomplete_batch_is_left_out() -> None:
    parts = list(batches(numbered(20, 4), torch.arange(20), recipe("short", batch=8), 0, 0))
    assert [len(batch.images) for batch in parts] == [8, 8]


def test_images_stay_with_their_labels_and_masks_with_their_images() -> None:
    images = numbered(16, 8)
    masks = images[..., 1] + 10 * (images[..., 2] % 2)
    for batch in batches(images, masks, recipe("short", batch=16, crop=0.25), 1, 0):
        inside = batch.targets != IGNORE
        expected = batch.images[..., 1] + 10 * (batch.images[..., 2] % 2)
        assert torch.equal(batch.targets[inside], expected[inside])
        assert (batch.images[~inside] == 0).all()
        assert 0 < (~inside).sum() < inside.sum()


def test_a_crop_moves_by_at_most_its_padding_and_half_are_mirrored() -> None:
    images = numbered(400, 8)
    mirrored, corners = 0, set()
    for batch in batches(images, torch.arange(400), recipe("short", batch=400, crop=0.25), 5, 0):
        for image in batch.images:
            row = next(r for r in range(8) if image[r].any())
            across = image[row, :, 2].tolist()
            seen = [value for value in across if value]
            mirrored += seen != sorted(seen)
            rows = [int(v) for v in image[:, :, 1].max(dim=1).values if v]
            corners.add(rows[0] - row)
            assert rows == list(range(rows[0], rows[0] + len(rows)))
            assert len(rows) >= 6
    assert 150 < mirrored < 250
    assert corners == {-1, 0, 1, 2, 3}


def test_mixup_gives_shares_of_its_own_in_every_batch() -> None:
    mixed = recipe("short", batch=4, mixup=0.4)
    shares = [batch.share for batch in batches(numbered(32, 4), torch.arange(32), mixed, 0, 0)]
    assert len(set(shares)) == 8
    assert all(0 <= share <= 1 for share in shares)
