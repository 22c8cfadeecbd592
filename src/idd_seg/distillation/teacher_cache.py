"""The teacher's outputs on disk, for pictures that come again: computed once, then read."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor, nn

from idd_seg.errors import ConfigError
from idd_seg.ops.validation import require_above
from idd_seg.types import Batch, Outputs

FORMAT = 1
LOGITS = "logits"
ADVICE = (
    "show pictures that come again: no augmentation (data.augment=null), or a number of epochs of it "
    "(data.frozen_epochs=10)"
)


class TeacherCache:
    """Asks the teacher once for each view (see `Batch.views`), and the disk from then on.

    Values are kept in half precision and given as such from the first time on: a run computes the same whatever the
    cache holds already. Each record has a checksum; one that is damaged is computed anew. When the limit
    is reached, or the disk is full, further views are asked of the teacher at each step.

    Args:
        folder: holds a folder for each teacher, data set and choice of maps.
        gigabytes: at most, of each of these.

    Raises:
        ConfigError: for a limit that is not positive.
    """

    def __init__(self, folder: str, gigabytes: float = 20.0) -> None:
        require_above("teacher_cache.gigabytes", gigabytes, 0, error=ConfigError)
        self.root, self.limit = Path(folder), int(gigabytes * 1e9)
        self.maps: tuple[str, ...] = ()
        self.identity = ""
        self.views = 0
        self.records: _Records | None = None
        self.asked = self.found = 0

    def bind(self, identity: Mapping[str, Any], views: int | None, maps: Sequence[str]) -> None:
        """Say what is to be kept.

        Args:
            identity: plain values; others, other outputs.
            views: how many different pictures the run shows.
            maps: the features that the terms read, beside the logits.

        Raises:
            ConfigError: if there is no end of the views.
        """
        if views is None:
            raise ConfigError(
                f"teacher_cache: every epoch shows new pictures, and nothing would be read twice; {ADVICE}"
            )
        self.views, self.maps = views, tuple(sorted(set(maps)))
        text = json.dumps({**identity, "maps": self.maps, "format": FORMAT}, sort_keys=True, default=str)
        self.identity = hashlib.sha256(text.encode()).hexdigest()

    def share(self) -> float:
        """Return the share of the pictures since the last call that the disk answered for."""
        share = self.found / max(1, self.asked)
        self.asked = self.found = 0
        return share

    def ask(self, teacher: nn.Module, batch: Batch) -> Outputs:
        """Return the teacher's logits and the maps of `bind`, in half precision's values and the teacher's type."""
        if batch.views is None:
            found: Outputs = teacher(batch.image)
            return found
        self.asked += len(batch.views)
        kept = None if self.records is None else self.records.read(batch.views)
        if kept is not None:
            self.found += len(batch.views)
            return self._outputs([x.to(batch.image.device, non_blocking=True) for x in kept])
        outputs: Outputs = teacher(batch.image)
        tensors = [outputs.logits, *(outputs.features[name] for name in self.maps)]
        half = [x if x.dtype in (torch.float16, torch.bfloat16) else x.half() for x in tensors]
        if not all(bool(torch.isfinite(x).all()) for x in half):
            # Beyond what half precision holds; so it would be at each step, whatever the cache holds.
            return outputs
        if self.records is None:
            self.records = self._open(half)
        self.records.write(batch.views, half)
        return self._outputs(half)

    def _outputs(self, half: Sequence[Tensor]) -> Outputs:
        logits, *maps = (x.float() if x.dtype == torch.float16 else x for x in half)
        return Outputs(logits, dict(zip(self.maps, maps, strict=True)))

    def _open(self, half: Sequence[Tensor]) -> _Records:
        layout = [(tuple(x.shape[1:]), str(x.dtype).removeprefix("torch.")) for x in half]
        numbers = sum(x[0].numel() for x in half)
        room = max(0, self.limit // (2 * numbers + _CHECK.itemsize))
        if room < self.views:
            warnings.warn(
                f"teacher_cache.gigabytes={self.limit / 1e9:g} holds {room} of the {self.views} views; the teacher is "
                f"asked for the others at each step ({2 * numbers * self.views / 1e9:.1f} GB would hold all)",
                stacklevel=2,
            )
        # The layout is told by the first batch: a teacher of other sizes is another one.
        name = hashlib.sha256(json.dumps([self.identity, layout]).encode()).hexdigest()[:24]
        return _Records(self.root / name, layout, min(room, self.views))


_CHECK = np.dtype(np.uint64)  # beside each record: 0 where there is none, else 1 + its CRC-32


class _Records:
    """One file of records of equal size, and one of their checksums."""

    def __init__(self, folder: Path, layout: Sequence[tuple[tuple[int, ...], str]], count: int) -> None:
        self.layout, self.count = layout, count
        self.numbers = [int(np.prod(shape)) for shape, _ in layout]
        self.size = 2 * sum(self.numbers)
        self.full = count == 0
        self.damaged = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = folder / "values.half", folder / "checks.u64"
        with FileLock(folder / "lock"):
            for path, length in zip(self.paths, (self.size * count, _CHECK.itemsize * count), strict=True):
                with path.open("ab") as file:
                    if file.tell() < length:
                        file.truncate(length)  # a hole, which takes no room until it is written
        self.values = self.checks = np.empty(0, np.uint8)
        if count:
            self.values = np.memmap(self.paths[0], np.uint8, "r", shape=(count, self.size))
            self.checks = np.memmap(self.paths[1], _CHECK, "r", shape=(count,))

    def read(self, views: Sequence[int]) -> list[Tensor] | None:
        """Return the tensors of these views in half precision; None if one is missing or damaged."""
        if max(views) >= self.count or not all(self.checks[view] for view in views):
            return None
        rows: NDArray[np.uint8] = np.stack([self.values[view] for view in views])
        for row, view in zip(rows, views, strict=True):
            if int(self.checks[view]) != 1 + zlib.crc32(row):
                self._tell_damage()
                return None
        parts = np.split(rows, np.cumsum([2 * n for n in self.numbers])[:-1], axis=1)
        return [
            torch.from_numpy(np.ascontiguousarray(part)).view(getattr(torch, kind)).view(len(views), *shape)
            for part, (shape, kind) in zip(parts, self.layout, strict=True)
        ]

    def write(self, views: Sequence[int], tensors: Sequence[Tensor]) -> None:
        """Keep the tensors of these views, as far as there is room."""
        if self.full or not any(view < self.count for view in views):
            return
        if [tuple(x.shape[1:]) for x in tensors] != [shape for shape, _ in self.layout]:
            return  # of another size than the first; asked of the teacher at each step
        planes = [x.detach().contiguous().view(torch.uint8).flatten(1).cpu().numpy() for x in tensors]
        try:
            with self.paths[0].open("r+b", buffering=0) as values, self.paths[1].open("r+b", buffering=0) as checks:
                for row, view in enumerate(views):
                    if view < self.count:
                        self._put(values.fileno(), checks.fileno(), view, b"".join(p[row].tobytes() for p in planes))
        except OSError as error:
            self.full = True
            warnings.warn(
                f"teacher_cache: {error.strerror} in '{self.paths[0].parent}'; what is there is read, the teacher is "
                "asked for the rest at each step",
                stacklevel=2,
            )

    def _put(self, values: int, checks: int, view: int, record: bytes) -> None:
        # The check comes last: a record that was cut off has none, or a wrong one.
        _write_all(values, record, view * self.size)
        _write_all(checks, _CHECK.type(1 + zlib.crc32(record)).tobytes(), view * _CHECK.itemsize)

    def _tell_damage(self) -> None:
        self.damaged += 1
        if self.damaged == 1:
            warnings.warn(f"teacher_cache: a record in '{self.paths[0]}' is damaged; it is computed anew", stacklevel=2)


def _write_all(file: int, content: bytes, offset: int) -> None:
    left = memoryview(content)
    while left:
        done = os.pwrite(file, left, offset)
        left, offset = left[done:], offset + done
