"""The same seed gives the same weights, to the bit, whatever the number of loader processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from idd_seg import train
from tests.commands import call
from tests.helpers import TINY

OPTIONS = (
    *TINY,
    "trainer.max_steps=4",
    "trainer.deterministic=true",
    "data.train_length=10",
    "loss=[ce,kd,idd,position]",
)


def test_two_runs_and_other_numbers_of_loader_processes_end_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDD_SEG_CACHE", str(tmp_path / "cache"))
    found = []
    for name, workers in (("first", 0), ("second", 0), ("third", 2)):
        options = (*OPTIONS, f"data.num_workers={workers}", f"hydra.run.dir={name}")
        assert call(train, *options, folder=tmp_path, patch=monkeypatch) == 0
        found.append(torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    first, *others = found
    for other in others:
        assert [k for k in first if isinstance(first[k], torch.Tensor) and not torch.equal(first[k], other[k])] == []
    options = (*OPTIONS, "data.num_workers=0", "seed=1", "hydra.run.dir=fourth")
    assert call(train, *options, folder=tmp_path, patch=monkeypatch) == 0
    other = torch.load(tmp_path / "fourth" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert not torch.equal(first["student.classifier.1.weight"], other["student.classifier.1.weight"])
