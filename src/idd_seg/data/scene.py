"""Generated scenes: what each class looks like and how a scene is put together. docs/shapes.md tells why."""

from __future__ import annotations

from collections.abc import Callable

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
Painter = Callable[["Canvas"], None]
Look = Callable[[int, int, int, int], Float]  # top, left, height, width -> (height, width, 3), or broadcastable to it


class Canvas:
    """A scene in the making: a float image in [0, 255] and its label."""

    def __init__(self, rng: Generator, height: int, width: int) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.unit = min(height, width)
        self.image: Float = np.zeros((height, width, 3), np.float32)
        self.label: UInt8 = np.zeros((height, width), np.uint8)

    def paint(self, mask: UInt8, look: Look, class_id: int) -> None:
        """Cover the masked pixels by what `look` gives for the mask's bounding box."""
        x, y, width, height = cv2.boundingRect(mask)
        box = slice(y, y + height), slice(x, x + width)
        where = mask[box] > 0
        self.image[box][where] = np.broadcast_to(look(y, x, height, width), (height, width, 3))[where]
        self.label[box][where] = class_id

    def noise(self, height: int, width: int, sigma: float) -> Float:
        """Grain (height, width, 1) of deviation 1 whose specks measure about `sigma` pixels."""
        raw = self.rng.standard_normal((height, width), np.float32)
        kernel = cv2.getGaussianKernel(round(8 * sigma + 1) | 1, sigma)
        # A blur leaves the sum of the squared weights of white noise's deviation.
        grain: Float = cv2.sepFilter2D(raw, -1, kernel, kernel) / np.float32((kernel**2).sum())
        return grain[..., None]

    def place(self, margin: float = 0.06) -> tuple[float, float]:
        """A centre (x, y) in pixels, at least `margin` of the sides from the border."""
        x, y = self.rng.uniform(margin, 1 - margin, 2)
        return x * self.width, y * self.height

    def empty(self) -> UInt8:
        """A mask of nothing."""
        return np.zeros((self.height, self.width), np.uint8)


def _colour(rng: Generator, centre: tuple[float, float, float], spread: float = 22) -> Float:
    return (np.array(centre) + rng.normal(0, spread, 3)).astype(np.float32)


def _plain(colour: Float) -> Look:
    return lambda y, x, height, width: colour


def paint_ground(canvas: Canvas) -> None:
    """Fill the scene with a soft, slightly clouded colour that says nothing of place."""
    coarse = canvas.noise(canvas.height // 8 + 1, canvas.width // 8 + 1, 0.01 * canvas.unit)
    cloud = cv2.resize(coarse, (canvas.width, canvas.height), interpolation=cv2.INTER_CUBIC)[..., None]
    canvas.image[:] = _colour(canvas.rng, (128, 124, 118)) + 10 * cloud


def paint_grain(canvas: Canvas) -> None:
    """Add a large blob of `fine grain` or `coarse grain`: equal colours and contrast, another speck size."""
    rng = canvas.rng
    coarse = bool(rng.integers(2))
    x, y = canvas.place(0.1)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = canvas.unit * rng.uniform(0.14, 0.34, 9)
    outline = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], 1).astype(np.int32)
    mask = cv2.fillPoly(canvas.empty(), [outline], 1)
    speck = 0.0125 if coarse else 0.0065
    colour = _colour(rng, (126, 130, 110))

    def look(y: int, x: int, height: int, width: int) -> Float:
        return colour + 26 * canvas.noise(height, width, speck * canvas.unit)

    canvas.paint(mask, look, 2 if coarse else 1)


def paint_hatch(canvas: Canvas) -> None:
    """Add a turned rectangle with stripes that lean 20 degrees to the left or to the right."""
    rng = canvas.rng
    right = bool(rng.integers(2))
    centre, sides = canvas.place(), canvas.unit * rng.uniform(0.16, 0.3, 2)
    corners = cv2.boxPoints((centre, tuple(sides), float(rng.uniform(0, 90))))
    mask = cv2.fillPoly(canvas.empty(), [corners.astype(np.int32)], 1)
    lean = np.deg2rad(20 if right else -20)
    colour, phase, period = _colour(rng, (120, 110, 140)), rng.uniform(0, 2 * np.pi), 0.05 * canvas.unit

    def look(y: int, x: int, height: int, width: int) -> Float:
        rows = np.arange(y, y + height, dtype=np.float32)[:, None]
        columns = np.arange(x, x + width, dtype=np.float32)
        along = (columns * np.cos(lean) - rows * np.sin(lean)) * (2 * np.pi / period) + phase
        stripes: Float = colour + 34 * np.sin(along.astype(np.float32))[..., None]
        return stripes

    canvas.paint(mask, look, 4 if right else 3)


def paint_disc(canvas: Canvas) -> None:
    """Add a disc: a `lamp` above the middle of the scene, a `buoy` below, of one look."""
    x, y = canvas.place()
    if abs(y / canvas.height - 0.5) < 0.05:
        return
    radius = int(canvas.unit * canvas.rng.uniform(0.05, 0.1))
    mask = cv2.circle(canvas.empty(), (int(x), int(y)), radius, 1, -1)
    canvas.paint(mask, _plain(_colour(canvas.rng, (180, 150, 90))), 5 if y < canvas.height / 2 else 6)


def paint_square(canvas: Canvas) -> None:
    """Add a square: `west` left of the middle of the scene, `east` right of it, of one look."""
    x, y = canvas.place()
    if abs(x / canvas.width - 0.5) < 0.05:
        return
    half = canvas.unit * canvas.rng.uniform(0.05, 0.09)
    corners = (int(x - half), int(y - half)), (int(x + half), int(y + half))
    mask = cv2.rectangle(canvas.empty(), *corners, 1, -1)
    canvas.paint(mask, _plain(_colour(canvas.rng, (90, 130, 180))), 7 if x < canvas.width / 2 else 8)


def paint_wire(canvas: Canvas) -> None:
    """Add a dark line across the scene, a hundredth of it thick."""
    rng = canvas.rng
    ends = np.linspace(0, 1, 4), rng.uniform(0, 1, 4)
    x, y = ends if rng.integers(2) else ends[::-1]
    points = np.stack([x * (canvas.width - 1), y * (canvas.height - 1)], 1).astype(np.int32)
    thickness = max(1, round(0.014 * canvas.unit))
    mask = cv2.polylines(canvas.empty(), [points], False, 1, thickness)
    canvas.paint(mask, _plain(_colour(rng, (60, 58, 56), 10)), 9)


def paint_spark(canvas: Canvas) -> None:
    """Add a small bright cross; called for one scene in three."""
    x, y = canvas.place()
    arm, thickness = max(2, round(0.05 * canvas.unit)), max(1, round(0.035 * canvas.unit))
    mask = canvas.empty()
    cv2.line(mask, (int(x) - arm, int(y)), (int(x) + arm, int(y)), 1, thickness)
    cv2.line(mask, (int(x), int(y) - arm), (int(x), int(y) + arm), 1, thickness)
    canvas.paint(mask, _plain(_colour(canvas.rng, (225, 215, 200), 12)), 10)


def paint_smudge(canvas: Canvas) -> None:
    """Add an occluder that belongs to no class and is ignored."""
    rng = canvas.rng
    axes = (canvas.unit * rng.uniform(0.03, 0.09, 2)).astype(int)
    x, y = canvas.place()
    centre, turn = (int(x), int(y)), float(rng.uniform(0, 180))
    mask = cv2.ellipse(canvas.empty(), centre, (int(axes[0]), int(axes[1])), turn, 0, 360, 1, -1)
    canvas.paint(mask, _plain(_colour(rng, (110, 110, 110), 40)), IGNORE)


def light(canvas: Canvas) -> UInt8:
    """Apply gain, a sloping light, a colour cast and sensor noise; return the image as uint8."""
    rng = canvas.rng
    angle = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, canvas.width, dtype=np.float32)
    down = np.linspace(-1, 1, canvas.height, dtype=np.float32)[:, None]
    slope = rng.uniform(0, 0.25) * (np.cos(angle) * across + np.sin(angle) * down)
    cast = (rng.uniform(0.7, 1.3) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
    grain = rng.standard_normal(canvas.image.shape, np.float32)
    grain *= np.float32(rng.uniform(3, 12))
    lit = canvas.image * (1 + slope[..., None]).astype(np.float32) * cast + grain
    image: UInt8 = np.clip(lit, 0, 255, out=lit).astype(np.uint8)
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
