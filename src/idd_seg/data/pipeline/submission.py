"""How a benchmark's server takes predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from idd_seg.data.pipeline.source import UInt8


@dataclass(frozen=True)
class ServerFormat:
    """One PNG a photograph, packed into one archive.

    Attributes:
        folder: of the pictures inside the archive.
        drop: ending of the photographs' names that the pictures' names do without.
        suffix: of the pictures' names.
        archive: `zip` or `gztar`.
        values: what the class ids 0 to K-1 are written as; None writes them as they are.
        coloured: write a palette picture in the data set's colours.
    """

    folder: str
    drop: str = ""
    suffix: str = ".png"
    archive: str = "zip"
    values: tuple[int, ...] | None = None
    coloured: bool = False

    def write(self, folder: Path, name: str, predicted: UInt8, palette: Sequence[Sequence[int]]) -> Path:
        """Write the class ids (H, W) of the photograph `name` below `folder`, and return the file."""
        values = np.arange(256) if self.values is None else np.array(self.values)
        picture = Image.fromarray(values.astype(np.uint8)[predicted])
        if self.coloured:
            picture.putpalette([channel for colour in palette for channel in colour])
        path = folder / self.folder / f"{Path(name).stem.removesuffix(self.drop)}{self.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        return path
