"""A video through a network: frames are read and written in threads of their own."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from idd_seg.data.pipeline.source import Raster, UInt8
from idd_seg.errors import DataError
from idd_seg.library import ClassIds
from idd_seg.prediction.inputs import PictureJob
from idd_seg.prediction.pipeline import Tally, shown
from idd_seg.prediction.results import Results
from idd_seg.prediction.video import Video, Writer, frames

Item = TypeVar("Item")
AHEAD = 8  # frames that wait to be shown, and to be written


def predict_video(
    job: PictureJob,
    video: Video,
    results: Results,
    show: Callable[[Sequence[Raster]], Iterable[ClassIds]],
    batch_size: int = 1,
    step: Callable[[], object] = lambda: None,
) -> Tally:
    """Write the overlay video of a job, and pictures of each frame where `results.frames` asks for them.

    What was read of a damaged video is written, and the damage is named in the tally.
    """
    tally, start = Tally(), time.perf_counter()
    writer = Writer(results.path("overlay", job, ".mp4"), video) if "overlay" in results.save else None
    try:
        with ThreadPoolExecutor(1) as pool:
            _stream(job, video, results, show, batch_size, step, writer, pool, tally)
        if writer is not None:
            _finish(job, writer, tally)
    finally:
        if writer is not None:
            writer.drop()
    tally.wall = time.perf_counter() - start
    return tally


def _finish(job: PictureJob, writer: Writer, tally: Tally) -> None:
    try:
        writer.close()
    except DataError as error:
        tally.failed.append((job.source, str(error)))


def _stream(
    job: PictureJob,
    video: Video,
    results: Results,
    show: Callable[[Sequence[Raster]], Iterable[ClassIds]],
    batch_size: int,
    step: Callable[[], object],
    writer: Writer | None,
    pool: ThreadPoolExecutor,
    tally: Tally,
) -> None:
    def write(number: int, frame: UInt8, ids: ClassIds) -> None:
        if results.frames:
            results.write_ids(replace(job, name=job.name / f"{number:06d}"), ids)
        if writer is not None:
            results.blend(frame, ids)
            writer.add(frame)

    written: list[Future[None]] = []
    source = background(frames(video), AHEAD)
    try:
        while batch := list(itertools.islice(source, batch_size)):
            start = time.perf_counter()
            found = shown(show, batch)
            tally.busy += time.perf_counter() - start
            for frame, ids in zip(batch, found, strict=True):
                written.append(pool.submit(write, tally.done, frame, ids))
                tally.done += 1
                step()
            while len(written) > AHEAD:
                written.pop(0).result()
    except DataError as error:
        tally.failed.append((job.source, str(error)))
    finally:
        source.close()
    for future in written:
        future.result()


def background(items: Iterator[Item], most: int) -> Generator[Item]:
    """Yield items that a thread makes, at most so many ahead; what it raises is raised here, after the items before."""
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(most)
    given_up = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> bool:
        while not given_up.is_set():
            try:
                ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item, None):
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        given_up.set()
        thread.join()
