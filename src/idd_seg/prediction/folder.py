"""All files that a command names, one after the other, with a progress bar and a tally."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from idd_seg.data.pipeline.pixels import RGB, Pixels
from idd_seg.data.pipeline.source import Raster
from idd_seg.errors import ConfigError, DataError
from idd_seg.evaluation.picture_input import read_picture, size_of
from idd_seg.library import ClassIds
from idd_seg.ops.validation import require_whole
from idd_seg.prediction.inputs import PictureJob
from idd_seg.prediction.pipeline import Found, Pipeline, Tally
from idd_seg.prediction.results import Results
from idd_seg.prediction.streaming import predict_video
from idd_seg.prediction.video import probe

MOST_PIXELS = 2**27  # twice as many as Pillow takes without being asked: its own bound lies above
AT_A_TIME = 2**24  # pixels of decoded photographs, fewer of larger ones; one larger picture at a time


@dataclass(frozen=True)
class Pace:
    """How many are read, shown and written at a time.

    Raises:
        ConfigError: for a number out of range.
    """

    batch_size: int
    workers: int
    max_pixels: int
    whole_limit: int

    def __post_init__(self) -> None:
        pixels = (("max_pixels", MOST_PIXELS), ("whole_limit", MOST_PIXELS))
        for key, most in (("batch_size", 4096), ("workers", 256), *pixels):
            require_whole(key, getattr(self, key), 1, most, error=ConfigError)


def predict_all(
    jobs: Sequence[PictureJob], show: Callable[[Sequence[Raster]], Iterable[ClassIds]], results: Results, pace: Pace
) -> Tally:
    """Predict pictures, then videos; `show` gives the class ids of pictures of one size."""
    with progress_bars() as progress:
        pictures = [job for job in jobs if not job.is_video]
        tally = show_pictures(pictures, show, results.write, pace, progress, results.model.card.pixels)
        for job in jobs:
            if job.is_video:
                _add(tally, _video(job, show, results, pace, progress))
    return tally


def progress_bars() -> Progress:
    """Return bars of what is done, of how many, and of the time left."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def show_pictures(
    pictures: Sequence[PictureJob],
    show: Callable[[Sequence[Raster]], Iterable[Found]],
    write: Callable[[PictureJob, Raster, Found], None],
    pace: Pace,
    progress: Progress,
    pixels: Pixels = RGB,
) -> Tally:
    """Read, show and write pictures of `pixels` at the same time; see `Pipeline`."""
    if not pictures:
        return Tally()
    pipeline = Pipeline(
        partial(size_of, max_pixels=pace.max_pixels, pixels=pixels),
        partial(read_picture, max_pixels=pace.max_pixels, pixels=pixels),
        show,
        write,
        pace.batch_size,
        pace.workers,
        max(AT_A_TIME * RGB.bytes // pixels.bytes, pace.batch_size),
    )
    bar = progress.add_task("pictures", total=len(pictures))
    return pipeline.run(pictures, lambda: progress.advance(bar))


def _video(
    job: PictureJob,
    show: Callable[[Sequence[Raster]], Iterable[ClassIds]],
    results: Results,
    pace: Pace,
    progress: Progress,
) -> Tally:
    try:
        video = probe(job.source, pace.max_pixels)
        bar = progress.add_task(job.source.name, total=video.frames or None)
        return predict_video(job, video, results, show, pace.batch_size, lambda: progress.advance(bar))
    except DataError as error:
        return Tally(failed=[(job.source, str(error))])


def _add(tally: Tally, more: Tally) -> None:
    tally.done += 0 if more.failed else 1
    tally.failed += more.failed
    tally.busy += more.busy
    tally.wall += more.wall


def write_failures(tally: Tally, folder: Path) -> Path | None:
    """Write the files that failed and why, one a line, and return that file; None if all went well."""
    path = folder / "failed.txt"
    path.unlink(missing_ok=True)  # of an earlier prediction into the same folder
    if not tally.failed:
        return None
    lines = sorted(f"{source}\t{reason}\n" for source, reason in tally.failed)
    path.write_bytes("".join(lines).encode("utf-8", "backslashreplace"))
    return path
