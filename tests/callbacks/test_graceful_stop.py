"""Who hears a signal during a training, and who after it."""

from __future__ import annotations

import os
import signal
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader, TensorDataset

from idd_seg.callbacks import graceful_stop
from idd_seg.callbacks.graceful_stop import SIGNALS, GracefulStop


class Linear(L.LightningModule):
    """A step that takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return self.layer(batch[0]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Sender(L.Callback):
    """Sends this process a signal in its second batch, and notes who would hear one."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.heard: dict[int, Any] = {}
        self.steps = 0
        self.number: int | None = None

    def on_train_batch_start(self, *_: Any) -> None:
        self.heard = {number: signal.getsignal(number) for number in SIGNALS}
        if self.steps == 1:
            for number in self.numbers:
                os.kill(os.getpid(), number)

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1


def fit(sender: Sender, tmp_path: Any) -> GracefulStop:
    interruption = GracefulStop()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[interruption, sender],
        default_root_dir=tmp_path,
        enable_model_summary=False,
        **quiet,
    )
    try:
        trainer.fit(Linear(), DataLoader(TensorDataset(torch.ones(8, 1))))
    finally:
        sender.number = interruption.number
    return interruption


def test_the_handlers_are_ours_alone_and_go_back(tmp_path: Any) -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    sender = Sender()
    fit(sender, tmp_path)
    for number in SIGNALS:
        # Lightning's composition of handlers would be an object of its own.
        assert getattr(sender.heard[number], "__module__", None) == "idd_seg.callbacks.graceful_stop"
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    assert sender.steps == 8


@pytest.mark.parametrize("number", SIGNALS)
def test_the_step_that_goes_on_is_finished(number: int, tmp_path: Any) -> None:
    sender = Sender(number)
    with pytest.raises(SIGTERMException):
        fit(sender, tmp_path)
    assert sender.steps == 2
    assert sender.number == number


def test_a_signal_that_is_sent_twice_is_one_wish(tmp_path: Any) -> None:
    """As slurmstepd does: SIGTERM, SIGCONT, SIGTERM within 30 ms."""
    sender = Sender(signal.SIGTERM, signal.SIGCONT, signal.SIGTERM)
    with pytest.raises(SIGTERMException):
        fit(sender, tmp_path)
    assert sender.steps == 2


def test_a_second_wish_ends_the_run_at_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graceful_stop, "SAME", 0.0)
    sender = Sender(signal.SIGTERM, signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        fit(sender, tmp_path)
    assert caught.value.code == 143
    assert sender.steps == 1
