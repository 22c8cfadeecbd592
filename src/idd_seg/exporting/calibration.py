"""Pictures that 8-bit files are calibrated on, and the mIoU that they are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from idd_seg.errors import ConfigError, DataError
from idd_seg.exporting.parity import Runner
from idd_seg.metrics.confusion import ConfusionMatrix, Scores, scores
from idd_seg.ops.validation import require_whole

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule


def check(data: SegmentationDataModule, number: Any, split: str, max_drop: Any) -> None:
    """Refuse what can't be calibrated or judged.

    Raises:
        ConfigError: if `number` is not a whole number of at least 1, there is no such split, or `max_drop` is no number
            of mIoU points.
        DataError: if the pictures are not there, or the split has no labels.
    """
    require_whole("calibration.images", number, 1, error=ConfigError)
    if max_drop is not None and (
        isinstance(max_drop, bool) or not isinstance(max_drop, int | float) or not max_drop >= 0
    ):
        raise ConfigError(f"calibration.max_drop must be mIoU points of at least 0, or null for any, got '{max_drop}'")
    if not data.labelled(split):
        raise DataError(f"data={data.name} has no labels for the split '{split}', on which mIoU would be measured")


class Pictures(Sequence[Tensor]):
    """Pictures (1, C, H, W) of the training split, drawn at random, without augmentation; read when they are asked for.

    Args:
        number: at most so many.
    """

    def __init__(self, data: SegmentationDataModule, number: int, seed: int = 0) -> None:
        self.source = data.dataset("train").source
        self.chosen = [int(i) for i in np.random.default_rng(seed).permutation(len(self.source))[:number]]

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, place: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        return _tensor(self.source[self.chosen[place]].image)


@torch.no_grad()
def judge(runner: Runner, data: SegmentationDataModule, split: str, title: str) -> Scores:
    """Return the scores of a function from pictures to logits, over a split.

    Raises:
        DataError: if the split has no labels.
    """
    source = data.dataset(split).source
    confusion = ConfusionMatrix(data.num_classes, data.ignore_index)
    for i in track(range(len(source)), description=title):
        item = source[i]
        if item.label is None:
            raise DataError(f"{item.name}: it has no label, so that mIoU can't be measured")
        label = torch.from_numpy(data.labels(item.label, item.name)).long()[None]
        confusion.update(runner(_tensor(item.image)), label)
    return scores(confusion.compute())


def _tensor(image: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
