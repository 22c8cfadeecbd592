"""A part of the training split can stand in for the held-out one, to choose options by."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from idd_seg.checkpoints.reader import Saved
from idd_seg.config import restore
from idd_seg.data.pipeline.source import Part
from idd_seg.errors import ConfigError
from tests.data.layouts import compose
from tests.data.sources import Coordinates, OneSource, settings


def module(**changes: object) -> OneSource:
    return OneSource(Coordinates(20, 30, length=11), **{**settings(30), "augment": None, **changes})


def test_the_last_part_is_held_out_and_not_trained_on() -> None:
    data = module(held_out=5)
    train, val = data.dataset("train").source, data.dataset("val").source
    names = [source.name(i) for source in (train, val) for i in range(len(source))]
    assert (len(train), len(val)) == (9, 2)
    whole = Coordinates(20, 30, length=11)
    assert names == [whole.name(i) for i in range(11)]


def test_without_it_splits_stay() -> None:
    assert len(module().dataset("train")) == 11


def test_what_a_training_was_judged_on_is_said() -> None:
    assert module().judged == "val"
    assert module(held_out=5).judged == "train, last of 5 parts"


def test_a_checkpoints_val_is_val() -> None:
    """Whoever evaluates a run whose options were searched on a held-out part asks for the split by its name."""
    cfg = compose("data.held_out=5", "data.train_length=10", "data.val_length=4", "loss=ce")
    card = {"config": {"data": OmegaConf.to_container(cfg.data, resolve=True)}}
    data = restore.data_from(Saved(Path("a.ckpt"), {}, card, "0"), None)
    assert [data.dataset("val").source.name(i) for i in range(4)] == [f"shapes:0/val/{i}" for i in range(4)]
    assert len(data.dataset("train")) == 10


def test_a_part_gives_its_source_s_items() -> None:
    whole = Coordinates(20, 30, length=11)
    part = Part(whole, range(3, 6))
    assert len(part) == 3
    assert part.name(1) == whole.name(4)
    assert part.key(1) == whole.key(4)
    assert (part[1].image == whole[4].image).all()


@pytest.mark.parametrize("parts", [0, 1, 2.5])
def test_other_numbers_of_parts_are_refused(parts: object) -> None:
    with pytest.raises(ConfigError, match=r"data\.held_out"):
        module(held_out=parts)
