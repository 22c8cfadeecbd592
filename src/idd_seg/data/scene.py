"""Generated scenes: what each class looks like and how a scene is put together. docs/shapes.md tells why."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from idd_seg.data.pipeline.source import UInt8

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
SHIFTS = 128  # places to a side from which a window of a texture is taken
THIRDS = np.linspace(0, 1, 4)


class Canvas:
    """A scene in the making: flat colours in [0, 255], the grey texture that lies on them, and the label."""

    def __init__(self, rng: Generator, height: int, width: int) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.unit = min(height, width)
        self.image: Float = np.zeros((height, width, 3), np.float32)
        self.texture: Float = np.zeros((height, width), np.float32)
        self.label: UInt8 = np.zeros((height, width), np.uint8)

    def draw(self, shape: Shape, colour: Colour, class_id: int) -> None:
        """Draw a shape of one colour without texture."""
        shape(self.image, colour)
        shape(self.texture, (0, 0, 0))
        shape(self.label, (class_id, 0, 0))

    def cover(self, corners: NDArray[np.float64], texture: Float, colour: Colour, class_id: int) -> None:
        """Cover a polygon by a texture in a colour.

        Args:
            corners: (n, 2), x and y in pixels; they may lie outside of the scene.
            texture: larger than the scene; see `window`.
        """
        outline = corners.astype(np.int32)
        cv2.fillPoly(self.image, [outline], colour)
        cv2.fillPoly(self.label, [outline], class_id)
        x, y, width, height = cv2.boundingRect(outline)
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, self.width), min(y + height, self.height)
        mask: UInt8 = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [outline], 255, offset=(-left, -top))
        cv2.copyTo(self.window(texture, *mask.shape), mask, self.texture[top:bottom, left:right])

    def window(self, texture: Float, height: int, width: int) -> Float:
        """A random part (height, width) of a texture: a view of one that lies ready costs nothing to make."""
        top = self.rng.integers(texture.shape[0] - height + 1)
        left = self.rng.integers(texture.shape[1] - width + 1)
        return texture[top : top + height, left : left + width]

    def place(self, margin: float = 0.06) -> tuple[float, float]:
        """A centre (x, y) in pixels, at least `margin` of the sides from the border."""
        x, y = self.rng.uniform(margin, 1 - margin, 2)
        return x * self.width, y * self.height


@lru_cache(maxsize=2)
def _white(height: int, width: int) -> Float:
    """White noise (height + SHIFTS, width + SHIFTS, 3) of deviation 1: drawn for each scene it would take longest."""
    return np.random.default_rng(0).standard_normal((height + SHIFTS, width + SHIFTS, 3), np.float32)


@lru_cache(maxsize=8)
def grain(height: int, width: int, sigma: float, contrast: float) -> Float:
    """Noise (height + SHIFTS, width + SHIFTS) of deviation `contrast` whose specks measure `sigma` pixels."""
    raw = np.random.default_rng(1).standard_normal((height + SHIFTS, width + SHIFTS), np.float32)
    return np.float32(contrast) * _blurred(raw, sigma)


@lru_cache(maxsize=2)
def _cloud(height: int, width: int) -> Float:
    """Clouds like `grain`, about a twelfth of a scene wide."""
    size = width + SHIFTS, height + SHIFTS
    raw = np.random.default_rng(1).standard_normal((size[1] // 8 + 1, size[0] // 8 + 1), np.float32)
    coarse = _blurred(raw, 0.01 * min(height, width))
    cloud: Float = 10 * cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return cloud


@lru_cache(maxsize=4)
def _stripes(height: int, width: int, lean: float) -> Float:
    """Stripes like `grain`, a twentieth of a scene wide, that lean by `lean` degrees."""
    turn = 2 * np.pi / (0.05 * min(height, width))  # radians for a pixel
    down = np.arange(height + SHIFTS, dtype=np.float32)[:, None] * np.float32(-turn * np.sin(np.deg2rad(lean)))
    across = np.arange(width + SHIFTS, dtype=np.float32) * np.float32(turn * np.cos(np.deg2rad(lean)))
    stripes: Float = 34 * np.sin(down + across)
    return stripes


@lru_cache(maxsize=2)
def _slopes(height: int, width: int) -> tuple[Float, Float]:
    """Ramps from -1 to 1, across and down."""
    across, down = (np.linspace(-1, 1, side, dtype=np.float32) for side in (width, height))
    return np.tile(across, (height, 1)), np.tile(down[:, None], (1, width))


def _blurred(noise: Float, sigma: float) -> Float:
    """Blur white noise, and keep its deviation."""
    kernel = cv2.getGaussianKernel(round(8 * sigma + 1) | 1, sigma)
    # A blur leaves the sum of the squared weights of white noise's deviation.
    blurred: Float = cv2.sepFilter2D(noise, -1, kernel, kernel) / np.float32((kernel**2).sum())
    return blurred


def _colour(rng: Generator, centre: Colour, spread: float = 22) -> Colour:
    red, green, blue = spread * rng.standard_normal(3)
    return centre[0] + red, centre[1] + green, centre[2] + blue


def paint_ground(canvas: Canvas) -> None:
    """Fill the scene with a soft, slightly clouded colour that says nothing of place."""
    cv2.rectangle(canvas.image, (0, 0), (canvas.width, canvas.height), _colour(canvas.rng, (128, 124, 118)), -1)
    canvas.texture = canvas.window(_cloud(canvas.height, canvas.width), canvas.height, canvas.width).copy()


def paint_grain(canvas: Canvas) -> None:
    """Add a large blob of `fine grain` or `coarse grain`: equal colours and contrast, another speck size."""
    rng = canvas.rng
    coarse = bool(rng.integers(2))
    centre = canvas.place(0.1)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = canvas.unit * rng.uniform(0.14, 0.34, 9)
    corners = centre + (radii * np.array([np.cos(angles), np.sin(angles)])).T
    speck = (0.0125 if coarse else 0.0065) * canvas.unit
    texture = grain(canvas.height, canvas.width, speck, 26)
    canvas.cover(corners, texture, _colour(rng, (126, 130, 110)), 2 if coarse else 1)


def paint_hatch(canvas: Canvas) -> None:
    """Add a turned rectangle with stripes that lean 20 degrees to the left or to the right."""
    rng = canvas.rng
    right = bool(rng.integers(2))
    centre, sides = canvas.place(), canvas.unit * rng.uniform(0.16, 0.3, 2)
    corners = np.asarray(cv2.boxPoints((centre, tuple(sides), rng.uniform(0, 90))))
    stripes = _stripes(canvas.height, canvas.width, 20 if right else -20)
    canvas.cover(corners, stripes, _colour(rng, (120, 110, 140)), 4 if right else 3)


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
    ends = THIRDS, rng.random(4)
    x, y = ends if rng.integers(2) else ends[::-1]
    points = np.array([x * (canvas.width - 1), y * (canvas.height - 1)]).T.astype(np.int32)
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
    """Put the texture on, apply gain, a sloping light, a colour cast and sensor noise; return the image as uint8."""
    rng = canvas.rng
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25)
    across, down = _slopes(canvas.height, canvas.width)
    bright = cv2.addWeighted(across, slope * np.cos(angle), down, slope * np.sin(angle), 1.0)
    cast = rng.uniform(0.7, 1.3) * rng.uniform(0.93, 1.07, 3)
    image = cv2.add(canvas.image, cv2.cvtColor(canvas.texture, cv2.COLOR_GRAY2BGR))
    lit = cv2.multiply(image, cv2.merge([bright * part for part in cast.astype(np.float32)]))
    noise = canvas.window(_white(canvas.height, canvas.width), canvas.height, canvas.width)
    # Rounded and clipped to 0 .. 255 by the way.
    photograph: UInt8 = cv2.addWeighted(lit, 1.0, noise, rng.uniform(3, 12), 0.0, dtype=cv2.CV_8U)
    return photograph


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
