"""Reading, predicting and writing at the same time, so that the network need not wait for files."""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch

from idd_seg.data.pipeline.source import Raster
from idd_seg.errors import DataError, UserError, message_of
from idd_seg.prediction.inputs import PictureJob

Found = TypeVar("Found")  # what the network finds in a picture
# After these every further picture would fail too.
FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@dataclass
class Tally:
    """What has been done.

    Attributes:
        failed: files that could not be predicted, with the reason.
        busy, wall: seconds of the network, and of all.
    """

    done: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    busy: float = 0.0
    wall: float = 0.0


def shown(show: Callable[[Sequence[Raster]], Iterable[Found]], pictures: Sequence[Raster]) -> Iterable[Found]:
    """Show pictures to the network.

    Raises:
        UserError: with advice, where the GPU's memory does not suffice.
    """
    try:
        return show(pictures)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"there is not enough memory on the GPU for {len(pictures)} pictures of {pictures[0].shape[:2]}; "
            "lower batch_size, or use eval.mode=slide"
        ) from error


class Budget:
    """Pixels of pictures that are in memory at a time; one that is larger than all of it passes alone."""

    def __init__(self, pixels: int) -> None:
        self.pixels, self.used, self.closed = pixels, 0, False
        self.changed = threading.Condition()

    def take(self, pixels: int) -> None:
        """Wait until there is room.

        Raises:
            RuntimeError: if there will be none any more.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.closed or not self.used or self.used + pixels <= self.pixels)
            if self.closed:
                raise RuntimeError("given up")
            self.used += pixels

    def give_back(self, pixels: int) -> None:
        with self.changed:
            self.used -= pixels
            self.changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()


@dataclass
class _Read:
    job: PictureJob
    picture: Raster
    pixels: int


@dataclass
class _Ended:
    job: PictureJob
    error: BaseException | None


class Pipeline(Generic[Found]):
    """Threads that read and write around a network in the thread that calls `run`.

    Args:
        size_of: (height, width) of a file, without decoding it.
        read: a file -> (H, W, C).
        show: pictures of one size -> what the network found in each, such as their class ids.
        write: job, picture, what was found -> files.
        batch_size: pictures of one size that are shown together. The network never waits for more of a size while it
            could work.
        workers: threads that read, and threads that write.
        budget: pixels in memory.
    """

    def __init__(
        self,
        size_of: Callable[[Path], tuple[int, int]],
        read: Callable[[Path], Raster],
        show: Callable[[Sequence[Raster]], Iterable[Found]],
        write: Callable[[PictureJob, Raster, Found], None],
        batch_size: int = 1,
        workers: int = 2,
        budget: int = 2**24,
    ) -> None:
        self.size_of, self.read, self.show, self.write = size_of, read, show, write
        self.batch_size, self.workers, self.budget = batch_size, workers, Budget(budget)
        self.events: queue.SimpleQueue[_Read | _Ended] = queue.SimpleQueue()

    def run(self, jobs: Sequence[PictureJob], step: Callable[[], object] = lambda: None) -> Tally:
        """Do all jobs; files that can't be read are left out and named in the tally.

        Args:
            step: called after each file.

        Raises:
            UserError: if the output can't be written any more.
        """
        tally, start = Tally(), time.perf_counter()
        with ThreadPoolExecutor(self.workers) as readers, ThreadPoolExecutor(self.workers) as writers:
            try:
                for job in jobs:
                    readers.submit(self._read, job)
                self._loop(len(jobs), writers, tally, step)
            except BaseException:
                self.budget.close()
                readers.shutdown(wait=False, cancel_futures=True)
                raise
        tally.wall = time.perf_counter() - start
        return tally

    def _loop(self, left: int, writers: ThreadPoolExecutor, tally: Tally, step: Callable[[], object]) -> None:
        waiting: dict[tuple[int, ...], list[_Read]] = {}
        while left:
            if waiting and self.events.empty():
                self._show(waiting.pop(max(waiting, key=lambda size: len(waiting[size]))), writers, tally)
                continue
            event = self.events.get()
            if isinstance(event, _Ended):
                self._note(event, tally)
                left -= 1
                step()
                continue
            same = waiting.setdefault(event.picture.shape, [])
            same.append(event)
            if len(same) == self.batch_size:
                self._show(waiting.pop(event.picture.shape), writers, tally)

    def _read(self, job: PictureJob) -> None:
        pixels = 0
        try:
            height, width = self.size_of(job.source)
            self.budget.take(height * width)
            pixels = height * width
            self.events.put(_Read(job, self.read(job.source), pixels))
        except BaseException as error:
            self.budget.give_back(pixels)
            self.events.put(_Ended(job, error))

    def _show(self, batch: list[_Read], writers: ThreadPoolExecutor, tally: Tally) -> None:
        start = time.perf_counter()
        found = shown(self.show, [read.picture for read in batch])
        tally.busy += time.perf_counter() - start
        for read, one in zip(batch, found, strict=True):
            writers.submit(self._write, read, one)

    def _write(self, read: _Read, found: Found) -> None:
        error: BaseException | None = None
        try:
            self.write(read.job, read.picture, found)
        except BaseException as caught:
            error = caught
        self.budget.give_back(read.pixels)
        self.events.put(_Ended(read.job, error))

    def _note(self, event: _Ended, tally: Tally) -> None:
        error = event.error
        if error is None:
            tally.done += 1
        elif isinstance(error, DataError):
            tally.failed.append((event.job.source, message_of(error)))
        elif isinstance(error, OSError) and error.errno not in FATAL:
            tally.failed.append((event.job.source, f"{event.job.source}: {error.strerror or error}"))
        elif isinstance(error, PermissionError) and str(error.filename) == str(event.job.source):
            tally.failed.append((event.job.source, f"{event.job.source}: {error.strerror}"))
        elif isinstance(error, OSError):
            raise UserError(
                f"results can't be written any more ({error.strerror}: '{error.filename}'); {tally.done} files are done"
            ) from error
        else:
            raise error
