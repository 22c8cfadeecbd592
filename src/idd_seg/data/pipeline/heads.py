"""A look at the heads of pictures before a training: are they what the data say that they are?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from idd_seg.data.pipeline.decode import size_of
from idd_seg.data.pipeline.source import Source, spread
from idd_seg.errors import DataError

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

MOST = 4096  # pictures of a split
READERS = 8  # files at once: most of the time is waiting for a disk


def look_at_pixels(data: SegmentationDataModule) -> None:
    """Look at the channels and bits of pictures that are no photographs, by their heads.

    Raises:
        DataError: that names the first file of another kind, and says how many there are.
    """
    if data.pixels.photograph:
        return
    for split in ("train", "val"):
        source = data.dataset(split).source
        places = spread(len(source), MOST)

        def problem(index: int, source: Source = source) -> str | None:
            path = source.files(index)[0]
            try:
                if path is not None:
                    size_of(path, pixels=data.pixels)
            except DataError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(READERS) as pool:
            found = [text for text in pool.map(problem, places) if text is not None]
        if found:
            more = f" ({len(found)} of the {len(places)} of '{split}' that were looked at)" if len(found) > 1 else ""
            raise DataError(f"{found[0]}{more}")
