"""Which layers stay in float where all layers in 8 bits lose too much mIoU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from idd_seg.errors import UserError
from idd_seg.exporting.parity import Runner
from idd_seg.metrics.confusion import Scores

# Makes the 8-bit form: layers that stay in float, pictures to calibrate on -> its runner.
Quantise = Callable[[Sequence[str], Sequence[Tensor]], Runner]
# Of the calibration's pictures, for the difference that one layer alone makes.
FEW = 4


@dataclass(frozen=True)
class Kept:
    """An 8-bit form, its scores, and its layers in float."""

    runner: Runner
    after: Scores
    in_float: list[str]


def quantise_within(
    name: str,
    quantise: Quantise,
    layers: Sequence[str],
    pictures: Sequence[Tensor],
    judge: Callable[[Runner], Scores],
    before: Scores,
    reference: Runner,
    max_drop: float | None,
) -> Kept:
    """Quantise all layers; if that loses more than `max_drop`, keep those in float that matter most: 1, 2, 4, ... .

    A layer matters by the squared difference that its quantisation alone makes to the logits.

    Args:
        layers: names of all that have weights.
        pictures: (1, C, H, W) each.
        before: scores in float.
        reference: the form in float.
        max_drop: mIoU points that may be lost; None: any number.

    Raises:
        UserError: if more than half of the layers would have to stay in float.
    """
    runner = quantise((), pictures)
    after = judge(runner)
    if _within(before, after, max_drop):
        return Kept(runner, after, [])
    print(f"{name}: mIoU {100 * before.miou:.2f} % before, {100 * after.miou:.2f} % after; looking which layers matter")
    ranked = _ranked(quantise, layers, pictures[:FEW], reference)
    for number in _doubling(len(layers) // 2):
        runner = quantise(ranked[:number], pictures)
        after = judge(runner)
        print(f"{name}: with {number} of {len(layers)} layers in float {100 * after.miou:.2f} %", flush=True)
        if _within(before, after, max_drop):
            return Kept(runner, after, ranked[:number])
    raise UserError(
        f"{name} was not written: it loses {100 * (before.miou - after.miou):.2f} points of mIoU even with half of its "
        f"layers in float, and calibration.max_drop is {max_drop}. More calibration.images may help, or training on "
        "with quantize=int8; calibration.max_drop=null writes it whatever it loses"
    )


def _within(before: Scores, after: Scores, max_drop: float | None) -> bool:
    return max_drop is None or 100 * (before.miou - after.miou) <= max_drop


def _doubling(most: int) -> Iterator[int]:
    number = 1
    while number < most:
        yield number
        number *= 2
    if most:
        yield most


def _ranked(quantise: Quantise, layers: Sequence[str], few: Sequence[Tensor], reference: Runner) -> list[str]:
    """Return the layers, the one that changes the logits most first."""
    with torch.inference_mode():
        expected = [reference(picture) for picture in few]
        changes = {}
        for layer in layers:
            alone = quantise([other for other in layers if other != layer], few)
            changes[layer] = sum(
                float((alone(picture) - right).square().mean()) for picture, right in zip(few, expected, strict=True)
            )
    return sorted(layers, key=lambda layer: -changes[layer])
