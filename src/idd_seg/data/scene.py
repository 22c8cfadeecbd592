"""Generated scenes: what each class looks like and how a scene is put together. docs/shapes.md tells why."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from idd_seg.data.source import UInt8

CLASSES = (
    "ground",
    "fine grain",
    "coarse grain",
    "hatch left",
    "hatch right",
    "lamp (disc above)",
    "buoy (disc below)",
    "west (square left)",
    "east (square right)",
    "wire",
    "spark",
)
IGNORE = 255
Float = NDArray[np.float32]
Colour = tuple[float, float, float]
Painter = Callable[["Canvas"], None]
Shape = Callable[[NDArray[np.generic], Colour], object]  # draws itself on an array in a colour
SHIFTS = 384  # places to a side from which a window of grain is taken


class Canvas:
    """A scene in the making: a float image in [0, 255] and its label."""

    def __init__(self, rng: Generator, height: int, width: int) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.unit = min(height, width)
        self.image: Float = np.zeros((height, width, 3), np.float32)
        self.label: UInt8 = np.zeros((height, width), np.uint8)

    def draw(self, shape: Shape, colour: Colour, class_id: int) -> None:
        """Draw a shape of one colour."""
        shape(self.image, colour)
        shape(self.label, (class_id, 0, 0))

    def cover(self, corners: NDArray[np.float64], texture: Callable[[int, int], Float], class_id: int) -> None:
        """Cover a polygon by a texture.

        Args:
            corners: (n, 2), x and y in pixels; they may lie outside of the scene.
            texture: gives the look (height, width, 3) of the part of the polygon's bounding box that is in the scene.
        """
        outline = corners.astype(np.int32)
        x, y, width, height = cv2.boundingRect(outline)
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, self.width), min(y + height, self.height)
        mask: UInt8 = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [outline - (left, top)], 1)
        box = slice(top, bottom), slice(left, right)
        cv2.copyTo(texture(*mask.shape), mask, self.image[box])
        cv2.copyTo(mask * np.uint8(class_id), mask, self.label[box])

    def noise(self, height: int, width: int, sigma: float) -> Float:
        """Grain (height, width) of deviation 1 whose specks measure about `sigma` pixels."""
        return self._window(_grain(max(height, self.height), max(width, self.width), round(sigma, 6)), height, width)

    def sensor_noise(self) -> Float:
        """White noise (height, width, 3) of deviation 1."""
        return self._window(_white(self.height, self.width, 3), self.height, self.width)

    def _window(self, grain: Float, height: int, width: int) -> Float:
        top = self.rng.integers(grain.shape[0] - height + 1)
        left = self.rng.integers(grain.shape[1] - width + 1)
        return grain[top : top + height, left : left + width]

    def place(self, margin: float = 0.06) -> tuple[float, float]:
        """A centre (x, y) in pixels, at least `margin` of the sides from the border."""
        x, y = self.rng.uniform(margin, 1 - margin, 2)
        return x * self.width, y * self.height


@lru_cache(maxsize=2)
def _white(height: int, width: int, channels: int) -> Float:
    """White noise of deviation 1, from which windows are taken: drawn anew for each scene it takes most of the time."""
    return np.random.default_rng(0).standard_normal((height + SHIFTS, width + SHIFTS, channels), np.float32)


@lru_cache(maxsize=8)
def _grain(height: int, width: int, sigma: float) -> Float:
    """Noise of deviation 1 and specks of `sigma` pixels, from which windows are taken."""
    raw = np.random.default_rng(1).standard_normal((height + SHIFTS, width + SHIFTS), np.float32)
    kernel = cv2.getGaussianKernel(round(8 * sigma + 1) | 1, sigma)
    # A blur leaves the sum of the squared weights of white noise's deviation.
    grain: Float = cv2.sepFilter2D(raw, -1, kernel, kernel) / np.float32((kernel**2).sum())
    return grain


def _colour(rng: Generator, centre: Colour, spread: float = 22) -> Colour:
    red, green, blue = spread * rng.standard_normal(3)
    return centre[0] + red, centre[1] + green, centre[2] + blue


def _tinted(texture: Float, colour: Colour) -> Float:
    """A texture (height, width) in a colour: (height, width, 3)."""
    tinted: Float = cv2.merge([texture + np.float32(channel) for channel in colour])
    return tinted


def paint_ground(canvas: Canvas) -> None:
    """Fill the scene with a soft, slightly clouded colour that says nothing of place."""
    coarse = canvas.noise(canvas.height // 8 + 1, canvas.width // 8 + 1, 0.01 * canvas.unit)
    cloud = cv2.resize(coarse, (canvas.width, canvas.height), interpolation=cv2.INTER_CUBIC)
    canvas.image = _tinted(10 * cloud, _colour(canvas.rng, (128, 124, 118)))


def paint_grain(canvas: Canvas) -> None:
    """Add a large blob of `fine grain` or `coarse grain`: equal colours and contrast, another speck size."""
    rng = canvas.rng
    coarse = bool(rng.integers(2))
    centre = canvas.place(0.1)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = canvas.unit * rng.uniform(0.14, 0.34, 9)
    corners = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    speck = (0.0125 if coarse else 0.0065) * canvas.unit
    colour = _colour(rng, (126, 130, 110))
    canvas.cover(corners, lambda h, w: _tinted(26 * canvas.noise(h, w, speck), colour), 2 if coarse else 1)


def paint_hatch(canvas: Canvas) -> None:
    """Add a turned rectangle with stripes that lean 20 degrees to the left or to the right."""
    rng = canvas.rng
    right = bool(rng.integers(2))
    centre, sides = canvas.place(), canvas.unit * rng.uniform(0.16, 0.3, 2)
    corners = cv2.boxPoints((centre, tuple(sides), float(rng.uniform(0, 90))))
    lean = np.deg2rad(20 if right else -20)
    colour, phase = _colour(rng, (120, 110, 140)), rng.uniform(0, 2 * np.pi)
    turn = 2 * np.pi / (0.05 * canvas.unit)  # radians for a pixel: a twentieth of the scene is a stripe

    def stripes(height: int, width: int) -> Float:
        down = np.arange(height) * (-turn * np.sin(lean)) + phase
        across = np.arange(width) * (turn * np.cos(lean))
        # The sine of a sum: two short rows of sines in the place of one for each pixel.
        waves = np.outer(np.sin(down), np.cos(across)) + np.outer(np.cos(down), np.sin(across))
        return _tinted(34 * waves.astype(np.float32), colour)

    canvas.cover(np.asarray(corners), stripes, 4 if right else 3)


def paint_disc(canvas: Canvas) -> None:
    """Add a disc: a `lamp` above the middle of the scene, a `buoy` below, of one look."""
    x, y = canvas.place()
    if abs(y / canvas.height - 0.5) < 0.05:
        return
    radius = int(canvas.unit * canvas.rng.uniform(0.05, 0.1))
    colour = _colour(canvas.rng, (180, 150, 90))
    canvas.draw(
        lambda on, c: cv2.circle(on, (int(x), int(y)), radius, c, -1), colour, 5 if y < canvas.height / 2 else 6
    )


def paint_square(canvas: Canvas) -> None:
    """Add a square: `west` left of the middle of the scene, `east` right of it, of one look."""
    x, y = canvas.place()
    if abs(x / canvas.width - 0.5) < 0.05:
        return
    half = canvas.unit * canvas.rng.uniform(0.05, 0.09)
    first, last = (int(x - half), int(y - half)), (int(x + half), int(y + half))
    colour = _colour(canvas.rng, (90, 130, 180))
    canvas.draw(lambda on, c: cv2.rectangle(on, first, last, c, -1), colour, 7 if x < canvas.width / 2 else 8)


def paint_wire(canvas: Canvas) -> None:
    """Add a dark line across the scene, a hundredth of it thick."""
    rng = canvas.rng
    ends = np.linspace(0, 1, 4), rng.uniform(0, 1, 4)
    x, y = ends if rng.integers(2) else ends[::-1]
    points = np.stack([x * (canvas.width - 1), y * (canvas.height - 1)], 1).astype(np.int32)
    thickness = max(1, round(0.014 * canvas.unit))
    colour = _colour(rng, (60, 58, 56), 10)
    canvas.draw(lambda on, c: cv2.polylines(on, [points], False, c, thickness), colour, 9)


def paint_spark(canvas: Canvas) -> None:
    """Add a small bright cross; called for one scene in three."""
    x, y = (int(part) for part in canvas.place())
    arm, thickness = max(2, round(0.05 * canvas.unit)), max(1, round(0.035 * canvas.unit))
    colour = _colour(canvas.rng, (225, 215, 200), 12)
    canvas.draw(lambda on, c: cv2.line(on, (x - arm, y), (x + arm, y), c, thickness), colour, 10)
    canvas.draw(lambda on, c: cv2.line(on, (x, y - arm), (x, y + arm), c, thickness), colour, 10)


def paint_smudge(canvas: Canvas) -> None:
    """Add an occluder that belongs to no class and is ignored."""
    rng = canvas.rng
    axes = (canvas.unit * rng.uniform(0.03, 0.09, 2)).astype(int)
    x, y = canvas.place()
    ellipse = (int(x), int(y)), (int(axes[0]), int(axes[1])), float(rng.uniform(0, 180)), 0, 360
    canvas.draw(lambda on, c: cv2.ellipse(on, *ellipse, c, -1), _colour(rng, (110, 110, 110), 40), IGNORE)


def light(canvas: Canvas) -> UInt8:
    """Apply gain, a sloping light, a colour cast and sensor noise; return the image as uint8."""
    rng = canvas.rng
    angle = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, canvas.width, dtype=np.float32)
    down = np.linspace(-1, 1, canvas.height, dtype=np.float32)[:, None]
    bright = 1 + np.float32(rng.uniform(0, 0.25)) * (
        np.float32(np.cos(angle)) * across + np.float32(np.sin(angle)) * down
    )
    cast = (rng.uniform(0.7, 1.3) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
    lit = cv2.multiply(canvas.image, cv2.merge([bright * part for part in cast]))
    # Rounded and clipped to 0 .. 255 by the way.
    image: UInt8 = cv2.addWeighted(lit, 1.0, canvas.sensor_noise(), rng.uniform(3, 12), 0.0, dtype=cv2.CV_8U)
    return image


def draw_scene(rng: Generator, height: int, width: int) -> tuple[UInt8, UInt8]:
    """Return an image (height, width, 3) and its label (height, width): 0..10, or 255 where ignored.

    Objects cover each other in random order; what lies deep is partly hidden.
    """
    canvas = Canvas(rng, height, width)
    paint_ground(canvas)
    for _ in range(rng.integers(2, 4)):
        paint_grain(canvas)
    painters: list[Painter] = []
    painters += [paint_hatch] * rng.integers(1, 4)
    painters += [paint_disc] * rng.integers(2, 5) + [paint_square] * rng.integers(2, 5)
    painters += [paint_wire] * rng.integers(1, 3) + [paint_smudge] * rng.integers(0, 3)
    if rng.random() < 0.33:
        painters.append(paint_spark)
    for i in rng.permutation(len(painters)):
        painters[i](canvas)
    return light(canvas), canvas.label
