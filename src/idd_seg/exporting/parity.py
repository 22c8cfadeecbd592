"""Whether a file computes what the network does, at several sizes and numbers of pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from idd_seg.data.pipeline.pixels import RGB, Pixels
from idd_seg.errors import UserError

Runner = Callable[[Tensor], Tensor]

# Number of pictures, height, width: even and odd, smaller than the coarsest grid of a head, wide and high.
SHAPES = ((1, 128, 128), (2, 97, 131), (3, 64, 48), (1, 33, 250), (1, 17, 9))


@dataclass(frozen=True)
class Parity:
    """The largest difference between the logits, and the share of pixels of equal class."""

    difference: float
    largest_logit: float
    same_class: float

    @property
    def relative(self) -> float:
        """The largest difference, relative to the largest logit where that is above 1."""
        return self.difference / max(1.0, self.largest_logit)

    def as_dict(self, tolerance: float) -> dict[str, Any]:
        return {
            "shapes": [list(shape) for shape in SHAPES],
            "max_abs_difference": self.difference,
            "max_abs_logit": self.largest_logit,
            "same_class": self.same_class,
            "tolerance": tolerance,
        }


@torch.no_grad()
def compare(expected: nn.Module, runner: Runner, pixels: Pixels = RGB) -> Parity:
    """Compare two functions from pictures (N, C, H, W) of `pixels` to logits, on smooth and on noisy pictures."""
    generator = torch.Generator().manual_seed(0)
    difference = largest = 0.0
    same = total = 0
    for number, height, width in SHAPES:
        picture = _picture(generator, number, height, width, pixels)
        theirs, ours = expected(picture), runner(picture)
        if not torch.isfinite(ours).all() or theirs.shape != ours.shape:
            return Parity(float("inf"), float(theirs.abs().max()), 0.0)
        difference = max(difference, float((theirs - ours).abs().max()))
        largest = max(largest, float(theirs.abs().max()))
        same += int((theirs.argmax(1) == ours.argmax(1)).sum())
        total += theirs[:, 0].numel()
    return Parity(difference, largest, same / total)


@torch.no_grad()
def compare_classes(expected: nn.Module, runner: Runner, pixels: Pixels = RGB) -> Parity:
    """Compare a function from pictures to classes (N, H, W) with one to logits.

    The difference is that between the largest logit of a pixel and the logit of the class that it got: 0 where it is
    the same class.
    """
    generator = torch.Generator().manual_seed(0)
    difference = largest = 0.0
    same = total = 0
    for number, height, width in SHAPES:
        picture = _picture(generator, number, height, width, pixels)
        logits, classes = expected(picture), runner(picture).long()
        outside = classes.shape != logits[:, 0].shape or int(classes.min()) < 0 or int(classes.max()) >= logits.shape[1]
        largest = max(largest, float(logits.abs().max()))
        if outside:
            return Parity(float("inf"), largest, 0.0)
        best, first = logits.max(1)
        difference = max(difference, float((best - logits.gather(1, classes[:, None])[:, 0]).max()))
        same += int((first == classes).sum())
        total += classes.numel()
    return Parity(difference, largest, same / total)


def refuse_difference(file: str, found: Parity, tolerance: float) -> None:
    """Refuse a file that computes something else.

    Raises:
        UserError: that names the difference and the bound.
    """
    if not found.relative <= tolerance:
        raise UserError(
            f"{file} was not written: its logits differ from PyTorch's by up to {found.difference:.2e} "
            f"(logits are up to {found.largest_logit:.1f}; {100 * found.same_class:.2f} % of the pixels get the same "
            f"class); at most {tolerance:.0e} of the largest is taken for rounding"
        )


def _picture(generator: torch.Generator, number: int, height: int, width: int, pixels: Pixels) -> Tensor:
    """Return coarse patches with noise on them: flat and busy places."""
    coarse = torch.rand(number, pixels.channels, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    noise = torch.rand(number, pixels.channels, height, width, generator=generator)
    return (pixels.white * (0.8 * smooth + 0.2 * noise)).round().to(getattr(torch, str(pixels.dtype)))
