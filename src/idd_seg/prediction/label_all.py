"""Labelling a folder of photographs: the pictures through the network, then the list and a page of the worst."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idd_seg.checkpoints.data_card import DataCard
from idd_seg.data.pipeline.decode import read_image
from idd_seg.data.pipeline.pixels import RGB, Pixels, viewable
from idd_seg.data.pipeline.source import Raster
from idd_seg.errors import ConfigError, DataError
from idd_seg.library import NO_CLASS, Confident, Model
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.plotting.contact_sheet import Classes, Shown, draw
from idd_seg.plotting.figures import save
from idd_seg.prediction.folder import Pace, progress_bars, show_pictures
from idd_seg.prediction.inputs import PictureJob
from idd_seg.prediction.label_folder import LabelFolder
from idd_seg.prediction.pipeline import Tally

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

SHEET = "least_certain.png"


class TeacherModel(Model):
    """A teacher that labels in a data set's classes, wherever it was trained.

    Args:
        data: whose classes and normalisation of pictures the teacher was loaded for.
    """

    def __init__(self, teacher: FrozenTeacher, data: SegmentationDataModule, device: Any, whole_limit: int) -> None:
        card = DataCard(
            str(data.name),
            data.class_names,
            [(int(r), int(g), int(b)) for r, g, b in data.palette],
            data.mean.tolist(),
            data.std.tolist(),
            data.image_scale,
            data.ignore_index,
            data.pixels,
        )
        self._set(teacher, card, device, whole_limit)


def refuse_videos(jobs: Sequence[PictureJob]) -> None:
    """Raise a ConfigError that names the first video."""
    if video := next((job for job in jobs if job.is_video), None):
        raise ConfigError(f"'{video.source}' is a video, and photographs are labelled; save its frames as pictures")


def label_all(
    jobs: Sequence[PictureJob],
    show: Callable[[Sequence[Raster]], Iterable[Confident]],
    folder: LabelFolder,
    pace: Pace,
    pixels: Pixels = RGB,
) -> Tally:
    """Label the photographs that have no mask yet."""
    left = folder.left(jobs)
    if len(left) < len(jobs):
        print(f"{len(jobs) - len(left)} of {len(jobs)} photographs have their masks already")
    with progress_bars() as progress:
        return show_pictures(left, show, folder.write, pace, progress, pixels)


def draw_least_certain(jobs: Sequence[PictureJob], folder: LabelFolder, most: int, pixels: Pixels = RGB) -> Path | None:
    """Draw the masks that the network is least certain of, the worst first; None if there is nothing to draw."""
    known = [(folder.rows[str(job.name)], job) for job in jobs if str(job.name) in folder.rows]
    chosen = sorted(known, key=lambda pair: (pair[0].mean, str(pair[1].name)))[:most]
    samples = []
    for certainty, job in chosen:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is turned: so is its mask
                image = viewable(read_image(job.source, pixels=pixels))
            label = folder.values.read(folder.mask(job))
        except DataError:
            continue  # it was removed since
        samples.append(Shown(image, label, f"{100 * certainty.mean:.0f} % {job.name.name}"))
    if not samples:
        return None
    values = folder.values
    return save(draw(samples, Classes(values.names, values.colours, NO_CLASS)), folder.folder / SHEET)
