"""Weights of classes, for losses that would else see little of the rare ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MEDIAN_FREQUENCY = "median_frequency"


class ClassCounts(NamedTuple):
    """Labels of a training split, counted.

    Attributes:
        pixels: (K,) of each class.
        around: (K,) labelled pixels of the pictures in which a class occurs.
    """

    pixels: Tensor
    around: Tensor


def median_frequency(counts: ClassCounts) -> Tensor:
    r"""Weights (K,) float32 by which every class counts as much as the median one, where it occurs.

    .. math:: w_k = \mathrm{median}(f) / f_k

    where :math:`f_k` are the pixels of class k as a share of the labelled pixels of the pictures with k.

    D. Eigen and R. Fergus, "Predicting depth, surface normals and semantic labels with a common multi-scale
    convolutional architecture", ICCV 2015, section 4.3. The median is over the classes that occur, the mean of the
    middle two of an even number; a class that does not occur has the weight 1.
    """
    there = counts.pixels > 0
    frequency = counts.pixels.double() / counts.around.clamp(min=1)
    weights = torch.ones_like(frequency)
    if there.any():
        weights[there] = frequency[there].quantile(0.5) / frequency[there]
    return weights.float()


def check_class_weights(given: Sequence[float] | str | None) -> Tensor | str | None:
    """Return weights as a tensor (K,); a word and None stay.

    Raises:
        ValueError: for another word than `median_frequency`, or numbers that are negative, not finite, or all 0.
    """
    if given is None or given == MEDIAN_FREQUENCY:
        return None if given is None else MEDIAN_FREQUENCY
    if isinstance(given, str):
        raise ValueError(f"class_weights must be {MEDIAN_FREQUENCY}, a number for each class or null, got '{given}'")
    numbers = [float(value) for value in given]
    if not all(0 <= value < math.inf for value in numbers) or not any(numbers):
        raise ValueError(f"class_weights must be finite numbers >= 0, one of them above 0, got {numbers}")
    return torch.tensor(numbers)
