"""Augmentation that touches only the pixels it needs, and remembers where they came from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from idd_seg.data.pipeline.jitter import ColourJitter
from idd_seg.data.pipeline.photometric import compose, from_unit, to_unit
from idd_seg.data.pipeline.pixels import Pixels
from idd_seg.data.pipeline.source import Raster
from idd_seg.errors import ConfigError

TRIES = 10
MOST_OF_OPENCV = 4  # channels of a colour to fill with
Value = TypeVar("Value", bound=np.generic)
LARGEST_SCALE = 16  # of pictures: larger ones only take memory


class Window(NamedTuple):
    """A part of a photograph (it may reach beyond it), and the size and direction in which it is shown."""

    top: int
    left: int
    height: int
    width: int
    out_height: int
    out_width: int
    flip: bool

    def box(self, height: int, width: int) -> NDArray[np.float32]:
        """Return left, top, right, bottom as fractions of the photograph; left and right exchanged when mirrored."""
        left, right = self.left / width, (self.left + self.width) / width
        if self.flip:
            left, right = right, left
        return np.array([left, self.top / height, right, (self.top + self.height) / height], np.float32)


def whole(height: int, width: int, scale: float) -> Window:
    """Return the window of a whole photograph, shown at `scale`."""
    return Window(0, 0, height, width, max(1, round(height * scale)), max(1, round(width * scale)), False)


class Augmentation:
    """Random scale, crop, mirror and, by option, photometric transforms.

    Args:
        crop: (height, width) of the result in pixels; None keeps the whole photograph. `auto` stands for a size that
            configurations settle by the photographs (`auto_crop.py`) before this is built.
        scale: range of the random scale, relative to `data.image_scale`.
        flip: probability of mirroring left and right.
        photometric: albumentations transforms of colours; others are refused, see `photometric.compose`.
        cat_max_ratio: largest share that one class may have of a crop's labelled pixels; up to `TRIES` crops are
            drawn, and the last one is taken. 1 takes the first.
        on_device: change the colours on the device, not in the loader; `photometric` must then be colour jitter.

    Raises:
        ConfigError: for a value out of range, or a photometric transform that moves pixels.
    """

    def __init__(
        self,
        crop: Sequence[int] | Literal["auto"] | None = None,
        scale: Sequence[float] = (1.0, 1.0),
        flip: float = 0.0,
        photometric: Sequence[Any] | None = None,
        cat_max_ratio: float = 1.0,
        on_device: bool = False,
    ) -> None:
        if isinstance(crop, str) or (crop is not None and (len(crop) != 2 or min(crop) < 1)):
            raise ConfigError(f"data.augment.crop must be [height, width] in pixels or null, got {list(crop)}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= LARGEST_SCALE:
            raise ConfigError(
                f"data.augment.scale must be [low, high] with 0 < low <= high <= {LARGEST_SCALE}, got {list(scale)}"
            )
        if not 0 <= flip <= 1:
            raise ConfigError(f"data.augment.flip is a probability, 0 to 1, got {flip}")
        if not 0 < cat_max_ratio <= 1:
            raise ConfigError(f"data.augment.cat_max_ratio is a share, above 0 and at most 1, got {cat_max_ratio}")
        self.cat_max_ratio = float(cat_max_ratio)
        self.crop = None if crop is None else (int(crop[0]), int(crop[1]))
        self.scale, self.flip = (float(scale[0]), float(scale[1])), float(flip)
        self.transforms, self.on_device = list(photometric or ()), on_device
        self.jitter = ColourJitter.like(photometric) if on_device else None
        self.photometric = compose(photometric) if photometric and not on_device else None

    def for_pixels(self, pixels: Pixels) -> tuple[Augmentation, str | None]:
        """Return the same augmentation of pictures that are no photographs.

        Colour jitter of other than three channels is done on the device: it changes brightness and contrast of all
        channels alike. Other transforms see 16 bits as numbers from 0 to 1.

        Returns:
            The augmentation, and in words what is left out of it.

        Raises:
            ConfigError: for a photometric transform that such pictures can't have.
        """
        changed = copy.copy(self)
        if pixels.channels == 3 or not (self.on_device or _is_jitter(self.transforms)):
            changed.photometric = compose(self.transforms, pixels) if self.photometric is not None else None
            return changed, None
        jitter = ColourJitter.like(self.transforms)
        if jitter is None:
            return changed, None
        changed.photometric, changed.jitter = None, jitter._replace(saturation=(1.0, 1.0), hue=(0.0, 0.0))
        left_out = "" if jitter == changed.jitter else "; saturation and hue are of RGB, and are left out"
        return changed, f"data.channels={pixels.channels}: colour jitter is brightness and contrast{left_out}"

    @property
    def random(self) -> bool:
        """Tell whether two epochs show a photograph differently."""
        changes = self.crop, self.photometric, self.jitter
        return any(x is not None for x in changes) or self.scale[0] < self.scale[1] or 0 < self.flip < 1

    def window(
        self, rng: Generator, height: int, width: int, image_scale: float, share: Callable[[Window], float]
    ) -> Window:
        """Choose a part of a photograph of (height, width), before a single pixel is scaled.

        Args:
            share: tells how much of a window's labelled pixels its largest class has; asked with `cat_max_ratio` < 1.
        """
        scale = image_scale * rng.uniform(*self.scale)
        flip = bool(rng.random() < self.flip)
        if self.crop is None:
            return whole(height, width, scale)._replace(flip=flip)
        rows, columns = max(1, round(self.crop[0] / scale)), max(1, round(self.crop[1] / scale))
        for _ in range(TRIES):
            top = int(rng.integers(max(0, height - rows) + 1))
            left = int(rng.integers(max(0, width - columns) + 1))
            window = Window(top, left, rows, columns, *self.crop, flip)
            if self.cat_max_ratio == 1 or share(window) <= self.cat_max_ratio:
                break
        return window

    def recolour(self, image: Raster, seed: int) -> Raster:
        """Apply the photometric transforms; the result depends on image and seed alone."""
        if self.photometric is None:
            return image
        self.photometric.set_random_seed(seed)
        if image.dtype == np.uint8:
            return self.photometric(image=image)["image"]  # type: ignore[no-any-return]
        return from_unit(self.photometric(image=to_unit(image))["image"])


def _is_jitter(transforms: Sequence[Any]) -> bool:
    return [type(transform).__name__ for transform in transforms] == ["ColorJitter"]


def cut(picture: NDArray[Value], window: Window, interpolation: int) -> NDArray[Value]:
    """Return the part of a picture (H, W) or (H, W, C) that lies in the window, scaled."""
    part: NDArray[Any] = picture[window.top : window.top + window.height, window.left : window.left + window.width]
    height = max(1, round(part.shape[0] * window.out_height / window.height))
    width = max(1, round(part.shape[1] * window.out_width / window.width))
    if part.shape[:2] != (height, width):
        # OpenCV drops the axis of a single channel.
        part = cv2.resize(part, (width, height), interpolation=interpolation).reshape(height, width, *part.shape[2:])
    return part


def place(part: NDArray[Value], window: Window, fill: Sequence[int]) -> NDArray[Value]:
    """Fill up to the window's size what lies beyond the photograph (a value a channel), and mirror."""
    below, right = window.out_height - part.shape[0], window.out_width - part.shape[1]
    channels = part.shape[2:]
    if below > 0 or right > 0:
        part = _bordered(part, max(0, below), max(0, right), fill)
    shown: NDArray[Any] = cv2.flip(part, 1) if window.flip else np.ascontiguousarray(part)
    return shown.reshape(*shown.shape[:2], *channels)


def _bordered(part: NDArray[Value], below: int, right: int, fill: Sequence[int]) -> NDArray[Value]:
    if part.ndim == 2 or part.shape[2] <= MOST_OF_OPENCV:
        return cv2.copyMakeBorder(part, 0, below, 0, right, cv2.BORDER_CONSTANT, value=list(fill))  # type: ignore[no-any-return]
    height, width, channels = part.shape
    whole = np.empty((height + below, width + right, channels), part.dtype)
    whole[:] = np.asarray(fill, part.dtype)
    whole[:height, :width] = part
    return whole
