"""Where photographs and masks lie in a folder of somebody's own, if the options do not say it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PHOTOGRAPHS = ("images", "photos", "imgs", "img", "JPEGImages")
MASKS = ("masks", "labels", "annotations", "SegmentationClass")
VAL = ("val", "valid", "validation")
SHOWN = 8  # names of folders in a message

Patterns = dict[str, str | None]


def default_image(split: str) -> str:
    """Return the pattern of a split's photographs that options have where nobody says another one."""
    return f"images/{split}/**/*"


def default_mask(split: str) -> str:
    """Return the pattern of a split's masks likewise."""
    return f"masks/{split}/**/*.png"


def with_layout(
    root: Path, images: Mapping[str, str | None], labels: Mapping[str, str | None]
) -> tuple[Patterns, Patterns, str | None]:
    """Return the patterns, the usual ones replaced where their folders are not there and those of others are.

    The layouts that are known: `images/train` with `masks/train` (the usual one), `train/images` with `train/masks`,
    and `images` with `masks`, which are not split. Other names: `PHOTOGRAPHS`, `MASKS`, `VAL`.

    Returns:
        The patterns of photographs and masks, and in words what was found, if it is not the usual layout.
    """
    found_images, found_labels = dict(images), dict(labels)
    usual = images.get("train") == default_image("train") and labels.get("train") == default_mask("train")
    said = None
    if usual and not (root / "images" / "train").is_dir() and (found := _found(root)) is not None:
        photographs, masks = found
        found_images["train"], found_labels["train"] = f"{photographs}/**/*", f"{masks}/**/*.png"
        said = f"photographs in '{photographs}', masks in '{masks}'"
        for name in VAL:
            inside = [path.replace("train/", f"{name}/", 1) for path in (photographs, masks)]
            if photographs.startswith("train/") and all((root / path).is_dir() for path in inside):
                found_images["val"], found_labels["val"] = f"{inside[0]}/**/*", f"{inside[1]}/**/*.png"
    # A split that nobody named and that is not there: `val_share` makes it.
    named = (found_images.get("val"), found_labels.get("val")) != (default_image("val"), default_mask("val"))
    if not named and not (root / "images" / "val").is_dir():
        found_images["val"] = found_labels["val"] = None
    return found_images, found_labels, said


def why_nothing(root: Path, base: Path) -> str:
    """Return why a pattern that no option gave finds nothing below `base`, and what to do: the end of a message."""
    if base.is_dir():
        others = [path.name for path in base.rglob("*") if path.is_file()]
        held = f"others, such as {min(others)}" if others else "no file"
        return f": '{base}' holds {held}"
    there = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    more = ", ..." if len(there) > SHOWN else ""
    held = f"the folders {', '.join(there[:SHOWN])}{more}" if there else "no folders"
    return (
        f", which has {held}; call them images and "
        "masks, or say which they are: data.images.train='FOLDER/*' data.labels.train='FOLDER/*.png' "
        "(docs/data.md, 'Pictures of your own')"
    )


def _found(root: Path) -> tuple[str, str] | None:
    for before in ("train/", ""):
        there = [
            next((f"{before}{name}" for name in names if (root / before / name).is_dir()), None)
            for names in (PHOTOGRAPHS, MASKS)
        ]
        if there[0] is not None and there[1] is not None:
            return there[0], there[1]
    return None
