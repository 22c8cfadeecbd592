"""A teacher's label set onto the data's: probabilities are summed, and mistakes are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from idd_seg.errors import ConfigError
from idd_seg.models.foreign.class_map import Mapped, merged
from tests.models.foreign.networks import CLASSES, cirkd, image, randomise

NAMES = ["sky", "car", "bus", "tree", "person"]
DATA = ["vehicle", "sky", "person"]


def test_probabilities_are_summed_and_normalised_over_the_mapped_classes() -> None:
    logits = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    chances = logits.softmax(1)
    expected = torch.stack([chances[:, 1] + chances[:, 2], chances[:, 0], chances[:, 4]], 1)
    expected /= expected.sum(1, keepdim=True)
    torch.testing.assert_close(merged(logits, [[1, 2], [0], [4]]).softmax(1), expected)


def test_names_and_indices_and_lists_of_both() -> None:
    network = randomise(cirkd("psp"))
    mapped = Mapped(network, [["car", 2], "sky", 4], DATA, NAMES)
    assert mapped.groups == [[1, 2], [0], [4]]
    assert mapped.num_classes == 3
    assert mapped.channels == network.channels
    outputs, own = mapped(image(32, 32)), network(image(32, 32))
    torch.testing.assert_close(outputs.logits, merged(own.logits, mapped.groups))
    assert all(torch.equal(outputs.features[k], own.features[k]) for k in own.features)


@pytest.mark.parametrize(
    ("entries", "names", "message"),
    [
        ([0, 1], NAMES, r"class_map has 2 entries, the data have 3 classes: vehicle, sky, person"),
        ([0, 1, 5], NAMES, r"the entry of 'person' is 5; the teacher's classes are 0 to 4"),
        ([0, -1, 2], NAMES, r"the entry of 'sky' is -1"),
        ([0, [], 2], NAMES, r"the entry of 'sky' is empty"),
        ([0, [1, "car"], 2], NAMES, r"the entry of 'sky' names a class twice"),
        ([0, "sly", 2], NAMES, r"the teacher has no class 'sly'; did you mean 'sky'\?"),
        ([0, "sky", 2], None, r"the teacher's file has no names; give indices, or teacher.class_names"),
        ([0, None, 2], NAMES, r"the entry of 'sky' is None"),
        ([0, True, 2], NAMES, r"the entry of 'sky' is True"),
        ([0, 1.5, 2], NAMES, r"the entry of 'sky' is 1.5"),
    ],
)
def test_mistakes(entries: Any, names: Any, message: str) -> None:
    assert len(NAMES) == CLASSES
    with pytest.raises(ConfigError, match=message):
        Mapped(cirkd("psp"), entries, DATA, names)
