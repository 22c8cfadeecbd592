"""Data sets of a few pixels in the folders of the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.sources import NAMES, label_map, photograph


@pytest.fixture
def camvid_root(tmp_path: Path) -> Path:
    """CamVid's folders: PNG photographs for training, JPEG ones for validation; labels 0 to 11."""
    root = tmp_path / "CamVid ü"
    for split, suffix in (("train", "png"), ("val", "jpg")):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for i, name in enumerate(NAMES):
            photograph(i).save(root / split / f"{name}.{suffix}")
            Image.fromarray(label_map(i, 12)).save(root / f"{split}annot" / f"{name}.png")
    return root


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """Pascal VOC's folders: JPEG photographs, palette label maps with a border of 255, lists of names."""
    root = tmp_path / "VOC2012 ü"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    palette = np.random.default_rng(0).permutation(768).astype(np.uint8).tolist()
    for i, name in enumerate(NAMES):
        photograph(i).save(root / "JPEGImages" / f"{name}.jpg")
        label = label_map(i, 21)
        label[0] = label[-1] = 255
        picture = Image.fromarray(label)
        picture.putpalette(palette)
        picture.save(root / "SegmentationClass" / f"{name}.png")
    for listed, names in (("train", NAMES[:2]), ("val", NAMES[2:])):
        text = "".join(f"{name}\n" for name in names) + "\n"
        (root / "ImageSets" / "Segmentation" / f"{listed}.txt").write_text(text, encoding="utf-8")
    return root
