"""Which transforms of albumentations may change colours: those that leave every pixel in its place, and its kind."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idd_seg.data.pipeline.pixels import RGB, Pixels
from idd_seg.data.pipeline.source import Raster
from idd_seg.errors import ConfigError, first_line

WHERE = "data.augment.photometric"
# Of those that albumentations counts as geometric, which blacken a part of the picture and leave the label as it is,
# unless they are told what to write there.
BLACKENING = {
    **dict.fromkeys(("CoarseDropout", "Erasing", "GridDropout", "XYMasking"), "fill_mask"),
    "PixelDropout": "mask_drop_value",
}
UINT16 = np.iinfo(np.uint16)
SIZE = (48, 64)  # of the picture that each is tried on
SEEDS = (0, 1, 2)
ELSEWHERE = (
    "scale, crop and mirroring are set by data.augment.scale, data.augment.crop and data.augment.flip, for picture, "
    "label and place alike"
)


def compose(transforms: Sequence[Any], pixels: Pixels = RGB) -> Any:
    """Return one transform that applies all, in order.

    Args:
        pixels: of the pictures; those of 16 bits are given to it by `to_unit`.

    Raises:
        ConfigError: for a transform that moves pixels, or whose result is no picture of the same size in whole numbers.
    """
    import albumentations

    for transform in _each(transforms):
        _refuse_moving(transform)
        _try(transform, pixels)
    return albumentations.Compose(list(transforms))


def to_unit(image: Raster) -> NDArray[np.float32]:
    """Return values of 16 bits as numbers from 0 to 1, which is the depth that albumentations has beside 8 bits."""
    return image.astype(np.float32) / np.float32(UINT16.max)


def from_unit(image: NDArray[np.float32]) -> Raster:
    """Return numbers from 0 to 1 as 16 bits; what lies outside becomes black or white."""
    return (image * UINT16.max).round().clip(0, UINT16.max).astype(np.uint16)


def _each(transforms: Any) -> Iterator[Any]:
    """Yield the transforms, those inside OneOf, SomeOf, Compose and others of their kind included."""
    import albumentations

    for transform in transforms:
        if isinstance(transform, albumentations.BaseCompose):
            yield from _each(transform.transforms)
        else:
            yield transform


def _refuse_moving(transform: Any) -> None:
    import albumentations

    name = type(transform).__name__
    if not isinstance(transform, albumentations.BasicTransform):
        raise ConfigError(f"{WHERE} takes transforms of albumentations, got {name}")
    if isinstance(transform, albumentations.ImageOnlyTransform) or type(transform) is albumentations.NoOp:
        return
    if name in BLACKENING:
        option = BLACKENING[name]
        if getattr(transform, option, None) is not None:
            raise ConfigError(
                f"{WHERE}: {name} would write into labels, which stay as they are here; leave out {option}"
            )
        return
    if isinstance(transform, albumentations.DualTransform) and name != "Lambda":
        raise ConfigError(
            f"{WHERE}: {name} moves or resizes pixels (or changes labels), and the labels would not fit; {ELSEWHERE}"
        )
    raise ConfigError(
        f"{WHERE}: {name} is not one of those that change colours alone (albumentations.ImageOnlyTransform); "
        "pictures become tensors, and are normalised by data.mean and data.std, without it"
    )


def _try(transform: Any, pixels: Pixels) -> None:
    """Apply a transform to a small picture of the data's kind, and refuse another result than a picture of its kind."""
    import albumentations

    kind = "a photograph" if pixels.photograph else f"pictures of {pixels}"
    name, certain = type(transform).__name__, copy.deepcopy(transform)
    certain.p = 1.0
    for seed in SEEDS:
        picture = np.random.default_rng(seed).integers(0, pixels.white + 1, (*SIZE, pixels.channels), pixels.dtype)
        if pixels.bits == 16:
            picture = to_unit(picture)
        try:
            shown = albumentations.Compose([certain], seed=seed)(image=picture)["image"]
        except Exception as error:
            raise ConfigError(f"{WHERE}: {name} can't be applied to {kind}: {first_line(error)}") from error
        made = getattr(shown, "dtype", type(shown).__name__), tuple(getattr(shown, "shape", ()))
        if made != (picture.dtype, picture.shape):
            raise ConfigError(
                f"{WHERE}: {name} makes {made[0]} of {' x '.join(map(str, made[1]))} of {kind}, which must stay "
                f"{picture.dtype} of {' x '.join(map(str, picture.shape))}; the run normalises by data.mean and "
                "data.std itself"
            )
