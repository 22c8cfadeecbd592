"""How masks hold class ids, so that a data set reads them as it reads its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from idd_seg.data.pipeline.decode_label import read_label
from idd_seg.data.pipeline.labels import with_table
from idd_seg.data.pipeline.source import UInt8
from idd_seg.errors import ConfigError
from idd_seg.library import NO_CLASS

SPARE_COLOURS = ((255, 255, 255), (0, 0, 0), (255, 0, 255), (1, 1, 1))


@dataclass(frozen=True)
class MaskValues:
    """The value and colour of each class in masks, and those of pixels that take no part.

    Masks are palette pictures: their indices are the values and their colours those of the classes, so that they are
    read with `data.masks=indices`, `palette` and `rgb`.
    """

    names: Sequence[str]
    colours: Sequence[Sequence[int]]
    values: Sequence[int]
    ignored: int
    ignored_colour: Sequence[int]
    masks: str

    @classmethod
    def of(cls, data: Mapping[str, Any], names: Sequence[str], colours: Sequence[Sequence[int]]) -> MaskValues:
        """Return the values that a data set's own masks have.

        Args:
            data: its options, as a run keeps them; what they don't say is as in masks of class ids.

        Raises:
            ConfigError: if a class has no value in its masks, or none is left for pixels that take no part.
        """
        plain = with_table(data)
        masks = str(plain.get("masks") or "indices")
        values, named = list(range(len(names))), [NO_CLASS]
        if masks == "indices" and plain.get("label_values"):
            found: dict[int, int] = {}
            for value, class_id in sorted((int(v), int(c)) for v, c in plain["label_values"].items()):
                found.setdefault(class_id, value)
            if lacking := [name for class_id, name in enumerate(names) if class_id not in found]:
                raise ConfigError(f"the class '{lacking[0]}' has no value in masks (data.label_values)")
            values = [found[class_id] for class_id in range(len(names))]
            named += [int(value) for value in plain.get("ignored") or ()]
        free = [value for value in [*named, *range(254, -1, -1)] if value not in values]
        if not free:
            raise ConfigError("masks have 256 values, and none is left for pixels that take no part")
        known = [tuple(colour) for colour in colours]
        spare = [tuple(colour) for colour in plain.get("ignored_colours") or ()] if masks != "indices" else []
        colour = next(colour for colour in [*spare, *SPARE_COLOURS, (2, 2, 2)] if colour not in known)
        return cls(list(names), [list(c) for c in known], values, free[0], list(colour), masks)

    def picture(self, ids: UInt8) -> Image.Image:
        """Return the mask of class ids (H, W), in which `NO_CLASS` takes no part."""
        table = np.full(256, self.ignored, np.uint8)
        table[: len(self.values)] = self.values
        palette = np.zeros((256, 3), np.uint8)
        palette[self.values], palette[self.ignored] = self.colours, self.ignored_colour
        mask = Image.fromarray(table[ids])
        mask.putpalette(palette.ravel().tolist())
        return mask

    def read(self, path: Path) -> UInt8:
        """Return the class ids (H, W) of a mask that `picture` has made."""
        table = np.full(256, NO_CLASS, np.uint8)
        table[self.values] = range(len(self.values))
        return table[read_label(path)]

    def options(self, root: Path, folder: Path) -> str:
        """Return the options of `data=folder` with which a training reads masks of a folder."""
        parts = [f"data.root={root}", f"data.classes={folder.absolute() / 'classes.yaml'}"]
        return " ".join(parts if self.masks == "indices" else [*parts, f"data.masks={self.masks}"])

    def class_list(self) -> str:
        """Return the class list that says all this to `data=folder`."""
        classes = [
            {"name": name, "colour": [int(v) for v in colour], "value": value}
            for name, colour, value in zip(self.names, self.colours, self.values, strict=True)
        ]
        ignored: Any = self.ignored if self.masks == "indices" else [int(v) for v in self.ignored_colour]
        return str(yaml.safe_dump({"classes": classes, "ignore": [ignored]}, sort_keys=False, allow_unicode=True))
