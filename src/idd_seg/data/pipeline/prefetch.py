"""A loader's batches on the device where they are needed, and how long was waited for them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from idd_seg.data.pipeline.dataset import Sample
from idd_seg.types import Batch


class Prefetcher:
    """Goes through a loader; a GPU copies each batch while it still computes the step before.

    Args:
        loader: gives batches, in pinned memory where there is a GPU.
        device: of the training.

    Attributes:
        waited: seconds in which the device had nothing to do because there was no batch. Time in which a GPU still
            worked on what it had been given does not count.
    """

    def __init__(self, loader: DataLoader[Sample], device: torch.device) -> None:
        self.loader, self.device, self.waited = loader, device, 0.0
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.loader)
        for _ in range(len(self)):
            done = None if self.stream is None else torch.cuda.current_stream(self.device).record_event()
            start = time.perf_counter()
            try:
                batch: Batch = next(batches)
            except StopIteration:
                return
            if done is None or done.query():
                self.waited += time.perf_counter() - start
            yield batch if self.stream is None else self._moved(batch, self.stream)

    def _moved(self, batch: Batch, stream: torch.cuda.Stream) -> Batch:
        with torch.cuda.stream(stream):
            moved = batch.to(self.device)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(stream)
        for tensor in (moved.image, moved.label, moved.box, moved.colours):
            if tensor is not None:
                tensor.record_stream(current)  # its memory is not given away before the step has used it
        return moved
