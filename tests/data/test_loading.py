"""Samples, their order and their batches: the same whatever the number of workers, other ones in every epoch."""

from __future__ import annotations

import math
from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from torch import Tensor

from idd_seg.data.augment import Augmentation
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.dataset import EpochSampler, Sample, collate
from idd_seg.data.pipeline.labels import LabelMap
from idd_seg.errors import ConfigError, DataError
from idd_seg.types import Batch
from tests.data.sources import Coordinates, OneSource, settings


def module(**changes: Any) -> OneSource:
    jitter = albumentations.ColorJitter(brightness=(0.5, 1.5), hue=(-0.1, 0.1), p=0.8)
    augment = Augmentation(crop=(24, 32), scale=(0.5, 2.0), flip=0.5, photometric=[jitter])
    return OneSource(Coordinates(40, 60, length=7), **settings(60, augment=augment, **changes))


def epochs(data: SegmentationDataModule, number: int) -> list[list[Batch]]:
    loader = data.train_dataloader()
    found = []
    for epoch in range(number):
        loader.sampler.set_epoch(epoch)
        found.append(list(loader))
    return found


def equal(a: Batch, b: Batch) -> bool:
    tensors = [(a.image, b.image), (a.label, b.label), (a.box, b.box)]
    return a.names == b.names and all(torch.equal(x, y) for x, y in tensors)


def test_workers_change_no_bit_over_two_epochs() -> None:
    alone, helped = epochs(module(num_workers=0), 2), epochs(module(num_workers=2), 2)
    assert [len(batches) for batches in alone] == [3, 3]
    for a, b in zip(alone, helped, strict=True):
        assert all(equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_global_generators_change_no_bit() -> None:
    batches = []
    for seed in (0, 1):
        np.random.seed(seed)
        torch.manual_seed(seed)
        batches.append(epochs(module(), 1)[0])
    assert all(equal(a, b) for a, b in zip(*batches, strict=True))


@pytest.mark.parametrize("where", ["box", "image"])
def test_every_sample_epoch_and_seed_has_a_stream_of_its_own(where: str) -> None:
    # The whole photograph shows the photometric stream alone, the box the geometric one.
    changes = {} if where == "box" else {"augment": Augmentation(photometric=[albumentations.ColorJitter(p=1)])}

    def drawn(seed: int, epoch: int, index: int) -> Tensor:
        data = OneSource(
            Coordinates(40, 60, length=7), **{**settings(60, augment=module().augment, seed=seed), **changes}
        )
        return getattr(data.dataset("train")[epoch, index], where)

    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1)]
    found = [drawn(*key) for key in keys]
    assert torch.equal(found[0], drawn(*keys[0]))
    for i, one in enumerate(found):
        assert not any(torch.equal(one, other) for other in found[:i]), keys[i]


def test_photometric_transforms_leave_label_and_box_alone() -> None:
    plain, coloured = (
        OneSource(Coordinates(40, 60), **settings(60, augment=Augmentation(crop=(24, 32), flip=0.5, photometric=p)))
        for p in (None, [albumentations.ColorJitter(brightness=(0.5, 0.6), p=1)])
    )
    a, b = plain.dataset("train")[0, 3], coloured.dataset("train")[0, 3]
    assert torch.equal(a.label, b.label)
    assert torch.equal(a.box, b.box)
    assert not torch.equal(a.image, b.image)


def test_held_out_samples_do_not_depend_on_the_epoch() -> None:
    data = module().dataset("val")
    first, later = data[0, 2], data[5, 2]
    assert torch.equal(first.image, later.image)
    assert first.name == later.name == "coordinates/2"


def order(length: int, epoch: int = 0, **options: Any) -> list[int]:
    sampler = EpochSampler(length, **{"seed": 0, "shuffle": True, **options})
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert len(keys) == len(sampler)
    assert {key[0] for key in keys} <= {epoch if sampler.shuffle else 0}
    return [index for _, index in keys]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    assert order(50, epoch=3) == order(50, epoch=3)
    assert sorted(order(50, epoch=3)) == list(range(50))
    orders = [order(50), order(50, epoch=1), order(50, seed=1), order(50, epoch=1, seed=1), list(range(50))]
    assert len({tuple(o) for o in orders}) == len(orders)


@pytest.mark.parametrize(("length", "world"), [(12, 3), (13, 3), (14, 4), (5, 8)])
def test_ranks_share_the_training_set_equally_and_without_overlap(length: int, world: int) -> None:
    shares = [order(length, rank=rank, world=world) for rank in range(world)]
    assert {len(share) for share in shares} == {length // world}
    seen = [index for share in shares for index in share]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(length))


@pytest.mark.parametrize(("length", "world"), [(12, 3), (13, 3), (14, 4), (5, 8)])
def test_ranks_see_every_held_out_image_once(length: int, world: int) -> None:
    shares = [order(length, rank=rank, world=world, shuffle=False) for rank in range(world)]
    assert sorted(index for share in shares for index in share) == list(range(length))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_labels_are_mapped_and_ignored() -> None:
    labels = LabelMap(2, 255, ignored=[11], mapping={7: 0, 8: 1, 9: 1})
    found = labels(np.array([[7, 8, 9], [11, 255, 7]], np.uint8), "x")
    assert found.tolist() == [[0, 1, 1], [255, 255, 0]]
    assert found.dtype == np.uint8


def test_labels_stay_as_they_are_without_a_mapping() -> None:
    values = np.array([[0, 1, 2, 255]], np.uint8)
    assert LabelMap(3, 255)(values, "x").tolist() == values.tolist()


@pytest.mark.parametrize(
    ("labels", "value"),
    [(LabelMap(11, 255, ignored=[11]), 12), (LabelMap(2, 255, mapping={7: 0, 8: 1}), 0), (LabelMap(3, 0), 255)],
)
def test_a_value_that_is_no_class_is_refused(labels: LabelMap, value: int) -> None:
    with pytest.raises(DataError, match=rf"photo 1\.png: .* value {value};.*data\.num_classes"):
        labels(np.full((2, 2), value, np.uint8), "photo 1.png")


@pytest.mark.parametrize("mapping", [{0: 5}, {0: -1}, {300: 0}])
def test_a_mapping_to_what_is_no_class_is_refused(mapping: dict[int, int]) -> None:
    with pytest.raises(ConfigError):
        LabelMap(2, 255, mapping=mapping)


def sample(height: int, width: int, name: str) -> Sample:
    return Sample(torch.zeros(3, height, width), torch.zeros(height, width), torch.zeros(4), name)


def test_a_batch_keeps_the_order_of_its_samples() -> None:
    data = module().dataset("train")
    items = [data[0, i] for i in (4, 1)]
    batch = collate(items)
    assert batch.names == ["coordinates/4", "coordinates/1"]
    assert (batch.image.shape, batch.image.dtype) == ((2, 3, 24, 32), torch.uint8)
    assert (batch.box.shape, batch.box.dtype) == ((2, 4), torch.float32)
    assert all(torch.equal(batch.label[i], item.label) for i, item in enumerate(items))


def test_images_of_different_sizes_are_refused() -> None:
    with pytest.raises(DataError, match=r"different sizes.*one\.png.*data\.eval_batch_size=1"):
        collate([sample(4, 4, "one.png"), sample(4, 5, "two.png")])


def test_normalisation_is_the_plain_formula() -> None:
    data = module()
    batch = collate([data.dataset("val")[0, i] for i in range(2)])
    found = data.on_after_batch_transfer(batch, 0)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    torch.testing.assert_close(found.image, (batch.image / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    assert found.label.dtype == torch.int64
    assert torch.equal(found.label, batch.label.long())
    assert batch.image.dtype == torch.uint8
    assert (found.names, found.box.tolist()) == (batch.names, batch.box.tolist())


def test_the_last_batch_is_dropped_in_training_and_kept_in_evaluation() -> None:
    data = module(eval_batch_size=3)
    assert [len(batch.names) for batch in data.train_dataloader()] == [2, 2, 2]
    seen = [name for batch in data.val_dataloader() for name in batch.names]
    assert seen == [f"coordinates/{i}" for i in range(7)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"eval_batch_size": 0}, "eval_batch_size"),
        ({"num_workers": -1}, "num_workers"),
        ({"image_scale": 0.0}, "image_scale must be above 0, up to 16, got 0"),
        ({"image_scale": math.inf}, "image_scale must be above 0, up to 16, got inf"),
        ({"std": [math.inf, 1.0, 1.0]}, "three finite numbers each"),
        ({"batch_size": 10**20}, "data.batch_size must be a whole number from 1 to 2147483647, got .10{20}.$"),
        ({"image_scale": math.nan}, "image_scale must be above 0, up to 16, got nan"),
        ({"class_names": ["one"]}, "60, but there are 1 class names"),
        ({"palette": [[0, 0, 0]]}, "60 class names and 1 colours"),
        ({"reduce_zero_label": True, "label_values": {1: 0}}, "data.reduce_zero_label=true and data.label_values both"),
        ({"reduce_zero_label": True, "masks": "rgb"}, "is of data.masks=indices, and data.masks is 'rgb'"),
    ],
)
def test_a_setting_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OneSource(Coordinates(40, 60), **settings(60, **changes))


def test_a_batch_larger_than_the_training_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size=8 is more than the 7 training images"):
        module(batch_size=8).train_dataloader()
