"""Gradients are clipped before a fused optimizer steps, in every precision."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn

from idd_seg.distillation.clipping import clip_gradients

RATE, SLOPE = 0.5, 40.0


class Line(L.LightningModule):
    """Falls along a slope of `SLOPE` in each of four directions, by plain fused SGD."""

    def __init__(self, without_loss: Collection[int] = ()) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(4))
        self.without_loss = without_loss  # batches
        self.left_out = False

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
        self.left_out = batch_idx in self.without_loss
        return None if self.left_out else SLOPE * self.place.sum() + 0 * batch.sum()

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.zeros(4, 1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=RATE, fused=True)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        clip_gradients(self.trainer, optimizer, gradient_clip_val, gradient_clip_algorithm, left_out=self.left_out)


def step(folder: Path, precision: str, module: Line | None = None, **clipping: Any) -> Tensor:
    """How far one step goes, or the four of an epoch."""
    steps = {"max_steps": 1} if module is None else {"max_epochs": 1}
    module = module or Line()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    if precision == "16-mixed":  # by its name a Trainer on a CPU takes bfloat16, which is not scaled
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        how: dict[str, Any] = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}
    else:
        how = {"precision": precision}
    trainer = L.Trainer(accelerator="cpu", default_root_dir=folder, **steps, **how, **quiet, **clipping)
    trainer.fit(module)
    return -module.place.detach() / RATE


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize(
    ("clipping", "expected"),
    [
        ({}, [SLOPE] * 4),
        ({"gradient_clip_val": 5.0}, [2.5] * 4),  # the norm of four elements of 2.5 is 5
        ({"gradient_clip_val": 1000.0}, [SLOPE] * 4),
        ({"gradient_clip_val": 5.0, "gradient_clip_algorithm": "value"}, [5.0] * 4),
    ],
    ids=["not at all", "norm", "a norm that is not reached", "value"],
)
def test_the_step_is_that_of_the_clipped_gradient(
    tmp_path: Path, precision: str, clipping: dict[str, Any], expected: list[float]
) -> None:
    assert step(tmp_path, precision, **clipping).tolist() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_batches_without_a_loss_may_be_left_out(tmp_path: Path, precision: str, first: int, accumulated: int) -> None:
    module = Line(without_loss=(first,))
    far = step(tmp_path, precision, module, gradient_clip_val=5.0, accumulate_grad_batches=accumulated)
    # Of four batches one is left out; where two make a step, float16 leaves it out with its last batch alone.
    taken = 3 if accumulated == 1 else 1 if precision == "16-mixed" and first == 1 else 2
    assert far.tolist() == pytest.approx([taken * 2.5] * 4, rel=1e-3)
