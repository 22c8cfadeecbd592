"""Which pictures a network does worst on, and which changed most against another: by their scores, and drawn."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from idd_seg.data.pipeline.pixels import viewable
from idd_seg.evaluation.per_image import PerImage
from idd_seg.models.segmenter import Segmenter
from idd_seg.ops.upsample import predict, whole_view
from idd_seg.plotting.cases import Case, draw
from idd_seg.plotting.error_maps import error_map, shares

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

WORST, IMPROVED, WORSENED = "worst", "improved", "worsened"


@dataclass(frozen=True)
class Judged:
    """A picture of a split, by its place there: mIoU of each network in 0 to 1, over the classes in truth or mask."""

    index: int
    name: str
    miou: Mapping[str, float]

    def change(self, pair: tuple[str, str]) -> float:
        """Return what the second network of a pair has more than the first."""
        return self.miou[pair[1]] - self.miou[pair[0]]


def judged(scores: Mapping[str, PerImage]) -> list[Judged]:
    """Return the pictures with a labelled pixel, whose scores stand in the order of the split, for all networks."""
    rows = zip(*(found.rows for found in scores.values()), strict=True)
    every = [
        Judged(i, row[0][0], dict(zip(scores, (own.miou for _, own, _ in row), strict=True)))
        for i, row in enumerate(rows)
    ]
    return [one for one in every if not any(math.isnan(value) for value in one.miou.values())]


def choose(pictures: Sequence[Judged], pair: tuple[str, str] | None, last: str, number: int) -> dict[str, list[Judged]]:
    """Return up to `number` pictures each: the worst of `last`; those where a pair differs most, either way.

    What did not change is neither improved nor worsened.
    """
    chosen = {WORST: sorted(pictures, key=lambda one: one.miou[last])[:number]}
    if pair is not None:
        ordered = sorted(pictures, key=lambda one: one.change(pair))
        chosen[IMPROVED] = [one for one in ordered[::-1] if one.change(pair) > 0][:number]
        chosen[WORSENED] = [one for one in ordered if one.change(pair) < 0][:number]
    return chosen


def write(path: Path, pictures: Sequence[Judged], pair: tuple[str, str] | None) -> Path:
    """Write a row a picture, mIoU in percent: what improved most comes first; without a pair, the worst."""
    names = list(pictures[0].miou) if pictures else []
    last = names[-1] if names else ""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["picture", *names, *([f"{pair[1]} - {pair[0]}"] if pair else [])])
        for one in sorted(pictures, key=lambda one: -one.change(pair) if pair else one.miou[last]):
            changes = [one.change(pair)] if pair else []
            rows.writerow([one.name, *(f"{100 * value:.2f}" for value in (*one.miou.values(), *changes))])
    return path


@torch.no_grad()
def show(
    chosen: Mapping[str, Sequence[Judged]],
    networks: Mapping[str, Segmenter],
    data: SegmentationDataModule,
    split: str,
    device: torch.device,
    pair: tuple[str, str] | None,
) -> Any:
    """Draw the chosen pictures with every network's mask and the last one's errors, beside those of a pair's first."""
    last = list(networks)[-1]
    words = {WORST: f"Worst of {last}"}
    if pair is not None:
        words |= {
            IMPROVED: f"Most improved: {pair[1]} against {pair[0]}",
            WORSENED: f"Most worsened: {pair[1]} against {pair[0]}",
        }
    cases: dict[int, Case] = {}
    for one in (one for found in chosen.values() for one in found):
        if one.index not in cases:
            cases[one.index] = _case(one, networks, data, split, device, pair)
    sections = {words[key]: [cases[one.index] for one in found] for key, found in chosen.items() if found}
    errors = f"errors of {last}" if pair is None else f"{pair[1]} - {pair[0]}"
    return draw(sections, data.class_names, data.palette, errors, two=pair is not None)


def _case(
    one: Judged,
    networks: Mapping[str, Segmenter],
    data: SegmentationDataModule,
    split: str,
    device: torch.device,
    pair: tuple[str, str] | None,
) -> Case:
    sample, batch = data.one(split, one.index, device)
    size, truth = sample.label.shape, sample.label.numpy()
    masks = {
        name: predict([whole_view(network(batch.image).logits, size)], size)[0].to(torch.uint8).cpu().numpy()
        for name, network in networks.items()
    }
    before = None if pair is None else masks[pair[0]]
    errors = error_map(truth, masks[list(networks)[-1]], data.num_classes, before)
    won, lost = shares(errors)
    title = f"{_end(one.name)}: mIoU " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in one.miou.items())
    if pair is None:
        title += f"; {100 * lost:.1f} % of the pixels wrong"
    else:
        title += f"; {pair[1]} - {pair[0]}: {100 * one.change(pair):+.1f}, {100 * won:.1f} % of the pixels won"
        title += f" and {100 * lost:.1f} % lost"
    return Case(title, viewable(sample.image.permute(1, 2, 0).numpy()), truth, masks, errors)


def _end(name: str, most: int = 60) -> str:
    return name if len(name) <= most else "…" + name[1 - most :]
