"""The crop of a training, by the size of its photographs."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from idd_seg.data.pipeline.decode import size_of
from idd_seg.data.pipeline.source import spread
from idd_seg.errors import DataError

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

AUTO = "auto"  # data.augment.crop
SAMPLE = 64  # photographs whose sizes are read, spread over the split
LARGEST, STEP = 512, 32


def crop_for(data: SegmentationDataModule) -> tuple[list[int], str | None]:
    """Return (height, width) of a crop: the median side of the photographs as the network sees them, at most 512.

    A crop that is larger than the photographs would be padding for the most part.

    Returns:
        The crop, in multiples of 32, and in words why; None where no photograph could be looked at.
    """
    try:
        source = data.dataset("train").source
        places = spread(len(source), SAMPLE)
        files = [source.files(index)[0] for index in places]
        sizes = [
            size_of(path, pixels=data.pixels) if path is not None else source[index].image.shape[:2]
            for path, index in zip(files, places, strict=True)
        ]
    except DataError:
        return [LARGEST, LARGEST], None  # whoever looks at the data says what is wrong
    height, width = (statistics.median(size[side] for size in sizes) for side in (0, 1))
    crop = [_side(data.image_scale * side) for side in (height, width)]
    return crop, (
        f"data.augment.crop=[{crop[0]},{crop[1]}], since the photographs are {width:g} x {height:g} pixels "
        f"(the median of {len(sizes)}) and data.image_scale is {data.image_scale:g}"
    )


def _side(pixels: float) -> int:
    return max(STEP, min(LARGEST, int(pixels) // STEP * STEP))
