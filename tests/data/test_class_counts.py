"""How often each class occurs in the training labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idd_seg.data.camvid import CamVid
from idd_seg.data.pipeline import class_counts as module
from idd_seg.data.pipeline.class_counts import class_counts
from tests.data import layouts
from tests.data.sources import settings


def test_counts_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = CamVid(root=str(layouts.camvid(tmp_path)), **settings(11, ignored=[11], augment=None))
    labels = [np.asarray(data.dataset("train").source[i].label) for i in range(len(data.dataset("train")))]
    pixels, around = class_counts(data)
    for k in range(11):
        assert pixels[k] == sum((label == k).sum() for label in labels)
        assert around[k] == sum((label < 11).sum() for label in labels if (label == k).any())
    assert pixels.sum() > 0
    monkeypatch.setattr(module, "MOST", 2)
    some, _ = class_counts(data)
    assert some.sum() == sum((label < 11).sum() for label in (labels[0], labels[-1]))
