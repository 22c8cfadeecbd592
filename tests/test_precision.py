"""Training in other precisions than the default: every term takes part, and a run that was stopped goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from idd_seg.callbacks.atomic_checkpoint_io import AtomicCheckpointIO
from idd_seg.callbacks.average import Average
from idd_seg.losses.adversarial import Adversarial
from idd_seg.losses.class_position import ClassPosition
from idd_seg.losses.term import Term
from tests.test_training import all_terms, distiller, network, shapes, trainer


def terms() -> dict[str, Term]:
    return {**all_terms(), "adversarial": Adversarial(11), "class_position": ClassPosition()}


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_a_run_goes_on_in_its_precision(tmp_path: Path, precision: str) -> None:
    """What a term trains by itself is restored before Lightning casts the module."""
    first, second = (distiller(terms(), network(8)) for _ in range(2))
    options = {"precision": precision, "limit_val_batches": 0}
    run = trainer(tmp_path, 2, callbacks=[Average()], plugins=[AtomicCheckpointIO()], **options)
    run.fit(first, datamodule=shapes())
    run.save_checkpoint(tmp_path / "two.ckpt")
    before = {name: tensor.clone() for name, tensor in first.terms["position"].reader.state_dict().items()}  # type: ignore[union-attr]
    again = trainer(tmp_path, 4, callbacks=[Average()], plugins=[AtomicCheckpointIO()], **options)
    again.fit(second, datamodule=shapes(), ckpt_path=tmp_path / "two.ckpt")
    assert again.global_step == 4
    after = second.terms["position"].reader.state_dict()  # type: ignore[union-attr]
    assert any(not torch.equal(before[name], tensor.to(before[name])) for name, tensor in after.items())
    assert all(torch.isfinite(x).all() for x in second.state_dict().values() if isinstance(x, torch.Tensor))
