"""Views: what a training shows has a number, where it is shown again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from idd_seg.data.augment import Augmentation
from idd_seg.errors import ConfigError
from idd_seg.types import Batch
from tests.data.sources import Coordinates, OneSource, settings


def module(**changes: Any) -> OneSource:
    return OneSource(Coordinates(40, 60, length=6), **{**settings(60), "augment": None, **changes})


def shown(data: OneSource, epoch: int, index: int = 1) -> tuple[torch.Tensor, int | None]:
    sample = data.dataset("train")[(epoch, index)]
    return sample.image, sample.view


def test_without_augmentation_every_epoch_shows_the_same() -> None:
    data = module()
    assert shown(data, 0)[1] == shown(data, 3)[1] == 1
    assert data.dataset("train").views == 6


def test_augmentation_has_no_end_of_views() -> None:
    data = module(augment=Augmentation(crop=[16, 16]))
    assert shown(data, 0)[1] is None
    assert not torch.equal(shown(data, 0)[0], shown(data, 1)[0])
    assert data.dataset("train").views is None


def test_frozen_augmentation_comes_again() -> None:
    data = module(augment=Augmentation(crop=[16, 16]), frozen_epochs=2)
    assert torch.equal(shown(data, 1)[0], shown(data, 5)[0])
    assert not torch.equal(shown(data, 0)[0], shown(data, 1)[0])
    assert [shown(data, epoch)[1] for epoch in (0, 1, 2, 3)] == [1, 7, 1, 7]
    assert data.dataset("train").views == 12


def test_held_out_pictures_have_no_number() -> None:
    assert module().dataset("val")[(0, 0)].view is None


def test_a_batch_carries_the_numbers() -> None:
    data = module(batch_size=3)
    batch = next(iter(data.train_dataloader()))
    assert sorted(batch.views) == sorted(set(batch.views))
    moved = batch.to(torch.device("cpu"))
    assert isinstance(moved, Batch)
    assert moved.views == batch.views


@pytest.mark.parametrize("number", [0, -1, 1.5])
def test_other_numbers_of_epochs_are_refused(number: object) -> None:
    with pytest.raises(ConfigError, match="frozen_epochs"):
        module(frozen_epochs=number)
