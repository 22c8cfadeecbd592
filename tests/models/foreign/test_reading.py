"""Files of other programs: what they wrap weights in is taken off, what does not fit is named, nothing is executed."""

from __future__ import annotations

import collections
import pickle
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models.foreign.cirkd import CIRKD
from idd_seg.models.foreign.extras import needed
from idd_seg.models.foreign.state import load, weights_in
from idd_seg.models.pretrained.weights import read_foreign_weights, read_weights
from tests.models.foreign.networks import CLASSES, cirkd, randomise

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return randomise(cirkd("psp")).state_dict()


def open_(path: Path) -> CIRKD:
    found = CIRKD.open(str(path), lambda **o: cirkd("psp", **o)).network
    assert isinstance(found, CIRKD)
    return found


WRAPPINGS = {
    "bare": lambda s: s,
    "DataParallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled within DataParallel": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "state_dict": lambda s: {"state_dict": s, "epoch": 7, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
    "model_state": lambda s: {"cur_itrs": 9, "model_state": s, "best_score": 0.7},
    "model of a Lightning module": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "hparams": {}},
    "ordered": lambda s: {"model": collections.OrderedDict(s)},
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_wrappings(name: str, state: State, tmp_path: Path) -> None:
    torch.save(WRAPPINGS[name](state), tmp_path / "a.pth")
    network = open_(tmp_path / "a.pth")
    assert network.num_classes == CLASSES
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_counters_of_batch_norm_may_be_absent(state: State, tmp_path: Path) -> None:
    torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, tmp_path / "a.pth")
    open_(tmp_path / "a.pth")


def test_an_auxiliary_head_is_left_out_and_said(state: State, tmp_path: Path) -> None:
    torch.save({**state, "auxlayer.block.0.weight": torch.ones(2), "auxlayer.b": torch.ones(1)}, tmp_path / "a.pth")
    found = CIRKD.open(str(tmp_path / "a.pth"), lambda **o: cirkd("psp", **o))
    assert "left out 2 tensors of auxlayer, which training alone uses" in found.said


def test_differences_are_counted_and_named(state: State, tmp_path: Path) -> None:
    odd = {k: v for k, v in state.items() if not k.startswith("pretrained.layer4.1.")}
    odd |= {"head.extra": torch.ones(1), "head.block.0.weight": torch.ones(3, 3)}
    torch.save(odd, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as caught:
        open_(tmp_path / "a.pth")
    text = str(caught.value)
    assert str(tmp_path / "a.pth") in text
    assert "10 missing: pretrained.layer4.1.conv1.weight, pretrained.layer4.1.bn1.weight" in text
    assert "1 not known: head.extra" in text
    assert "1 of another shape: head.block.0.weight is (3, 3) instead of (16, 128, 3, 3)" in text


def test_nothing_is_loaded_of_what_does_not_fit(state: State) -> None:
    network = cirkd("psp")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(CheckpointError):
        load(network, {k: v for k, v in state.items() if k != "pretrained.conv1.weight"}, "a.pth")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_file_of_another_family(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"it has no head\.classifier\.weight .* begin with weight, bias"):
        open_(tmp_path / "a.pth")


def test_a_file_without_weights() -> None:
    with pytest.raises(CheckpointError, match="holds no weights that this program finds; its entries are epoch"):
        weights_in({"epoch": 3}, "a.pth")
    with pytest.raises(CheckpointError, match="its entries are none"):
        weights_in({}, "a.pth")


def test_a_number_of_classes_that_the_file_has_not(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"head\.classifier\.weight is \(5, 16, 1, 1\) instead of \(7,"):
        CIRKD.open(str(tmp_path / "a.pth"), lambda **o: cirkd("psp", **{**o, "num_classes": 7}))


# What other programs keep beside their weights.


@pytest.fixture
def mmengine() -> Iterator[Any]:
    """The part of mmengine whose objects its checkpoints hold: methods are pickled by getattr."""
    parts = ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer")
    module = types.ModuleType(parts[-1])

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history, self._count_history = np.arange(3.0), np.ones(3, dtype=np.int64)
            self._statistics_methods = {"min": HistoryBuffer.least}

        @classmethod
        def least(cls) -> None:
            """A class method, so that it is pickled by getattr."""

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = parts[-1], "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    kept = {name: sys.modules.get(name) for name in parts}
    sys.modules.update({name: types.ModuleType(name) for name in parts[:-1]} | {parts[-1]: module})
    yield HistoryBuffer
    for name, old in kept.items():
        sys.modules.pop(name) if old is None else sys.modules.update({name: old})


def test_histories_and_numbers_beside_the_weights_are_forgotten(mmengine: Any, state: State, tmp_path: Path) -> None:
    import argparse

    content = {
        "state_dict": state,
        "best_pred": np.float64(0.78),
        "confusion": np.ones((2, 2)),
        "args": argparse.Namespace(lr=0.1, path=Path("a")),
        "message_hub": {"log_scalars": {"train/loss": mmengine()}},
    }
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds more than weights and plain values"):
        read_weights(tmp_path / "a.pth")
    found = read_foreign_weights(tmp_path / "a.pth")
    assert torch.equal(found["state_dict"]["pretrained.conv1.weight"], state["pretrained.conv1.weight"])
    assert {type(found[key]).__mro__[1].__name__ for key in ("best_pred", "confusion", "args")} == {"Forgotten"}
    open_(tmp_path / "a.pth")
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "a.pth")  # the permission has ended


class Hostile:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "plain pickle"])
def test_a_hostile_file_is_refused_and_not_executed(legacy: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "a.pth", tmp_path / "mark"
    content = {"state_dict": {"x": Hostile(Path.touch, mark)}}
    path.write_bytes(pickle.dumps(content, protocol=2)) if legacy else torch.save(content, path)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        open_(path)
    assert not mark.exists()


def test_what_is_forgotten_is_not_called(tmp_path: Path) -> None:
    """getattr of a dangerous function: what stands for getattr returns nothing that could be called."""
    content = {"x": Hostile(getattr, Path(tmp_path / "mark"), "touch")}
    torch.save(content, tmp_path / "a.pth")
    found = read_foreign_weights(tmp_path / "a.pth")
    assert not callable(found["x"])
    assert not (tmp_path / "mark").exists()


def test_a_missing_package_is_named_with_what_to_install() -> None:
    with pytest.raises(
        ConfigError, match=r"teacher=smp needs the package 'nowhere_at_all'.*pip install 'idd-seg\[smp\]'"
    ):
        needed("nowhere_at_all.part", "smp")
