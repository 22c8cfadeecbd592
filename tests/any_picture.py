"""A tiny folder of pictures of four channels of 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image


def near_infrared(root: Path) -> None:
    """Pictures whose second class is seen in the fourth channel alone."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 4), ("val", 2)):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for i in range(number):
            mask = np.zeros((32, 32), np.uint8)
            mask[8:24, 4 + 4 * i :] = 1
            picture = rng.integers(0, 9000, (32, 32, 4)).astype(np.uint16)
            picture[..., 3] += 40000 * mask.astype(np.uint16)
            tifffile.imwrite(root / "images" / split / f"{i}.tif", picture, photometric="rgb", compression="lzw")
            Image.fromarray(mask).save(root / "masks" / split / f"{i}.png")
