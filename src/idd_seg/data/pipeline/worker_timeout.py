"""How long is waited for a sample, and what the message names when it does not come."""

from __future__ import annotations

import atexit
import copy
import functools
import itertools
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, get_worker_info

from idd_seg.data.pipeline.dataset import Sample, SegmentationDataset
from idd_seg.data.pipeline.source import Around, Item, Source
from idd_seg.data.pipeline.worker_errors import KILLED, explained
from idd_seg.errors import DataError
from idd_seg.ops.private_api import loader_processes

# The time is counted in parts: processes that were stopped for a while, as some clusters do, lose one of them at most.
PARTS = 10
ADVICE = "Is the disk there? data.timeout_s=SECONDS waits longer, data.timeout_s=null for ever"


class TimeLimited(Around):
    """A source in a loader process, whose items are waited for so many seconds.

    A read that not even a signal ends is left to the training process, which waits a little longer.

    Raises:
        DataError: when it is asked for an item, and it does not come in time.
    """

    def __init__(self, source: Source, seconds: float) -> None:
        super().__init__(source)
        self.seconds = seconds
        self.index = self.parts = 0
        signal.signal(signal.SIGALRM, self._count)

    def __getitem__(self, index: int) -> Item:
        self.index, self.parts = index, 0
        signal.setitimer(signal.ITIMER_REAL, self.seconds / PARTS, self.seconds / PARTS)
        try:
            return self.source[index]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _count(self, number: int, frame: Any) -> None:
        self.parts += 1
        if self.parts >= PARTS:
            raise DataError(f"{self.name(self.index)}: reading it takes more than {self.seconds:g} s. {ADVICE}")


def limit_worker_time(seconds: float | None) -> None:
    """Let this loader process wait so many seconds for an item."""
    info = get_worker_info()
    if seconds is not None and info is not None and isinstance(info.dataset, SegmentationDataset):
        info.dataset.source = TimeLimited(info.dataset.source, seconds)


@functools.cache
def _end_in_silence() -> None:
    """Let loader processes that end with this one do so without a word.

    Where an error ends it, multiprocessing terminates them, and PyTorch's handler would add a stack trace to the error.
    """
    if threading.current_thread() is threading.main_thread():
        atexit.register(signal.signal, signal.SIGCHLD, signal.SIG_DFL)  # before multiprocessing's, which stands longer


class NamingLoader(DataLoader[Sample]):
    """A loader that says which files it waits for in vain, and why its processes were killed.

    Its `timeout` is the `PARTS`th part of the time to wait for a batch.
    """

    def __iter__(self) -> Any:
        if self.num_workers:
            _end_in_silence()
        return self._named(super().__iter__())

    def _named(self, batches: Iterator[Any]) -> Iterator[Any]:
        for number in itertools.count():
            try:
                yield self._next(batches, number)
            except StopIteration:
                return

    def _next(self, batches: Iterator[Any], number: int) -> Any:
        # A part more than a loader process waits, which can name the one file.
        for part in range(PARTS + 1):
            try:
                with explained():
                    return next(batches)
            except (OSError, EOFError) as error:
                # A batch was on its way from a process that is gone; PyTorch's signal handler may say so in a moment.
                with explained():
                    time.sleep(0.2)
                if self._all_there():
                    raise
                raise DataError(KILLED) from error
            except RuntimeError as error:
                if "timed out after" not in str(error):
                    raise
                if part == PARTS:
                    raise DataError(
                        f"no batch came for {PARTS * self.timeout:g} s; it is made of "
                        f"{', '.join(self._names(number))}. {ADVICE}"
                    ) from error
        raise AssertionError("the last part returns or raises")

    def _all_there(self) -> bool:
        return all(process.is_alive() for process in loader_processes(self))

    def _names(self, number: int) -> list[str]:
        size = self.batch_size or 1
        keys: Any = itertools.islice(iter(copy.deepcopy(self.sampler)), number * size, (number + 1) * size)
        dataset = self.dataset
        return [dataset.source.name(index) for _, index in keys] if isinstance(dataset, SegmentationDataset) else []
