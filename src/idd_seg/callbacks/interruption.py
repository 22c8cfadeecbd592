"""SIGTERM, SIGINT and SIGUSR1: a run ends between two steps, with a checkpoint from which it can go on."""

from __future__ import annotations

import signal
import threading
from typing import Any

import lightning as L

SIGNALS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class Interruption(L.Callback):
    """Lets the step that goes on finish; a second signal ends the run at once.

    Lightning's own handler of SIGTERM sends a message to the other processes from wherever this one stands, which may
    wait for another; and its SIGINT stops in the middle of a step.

    Attributes:
        number: of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread alone

        def stop(number: int, frame: Any) -> None:
            if self.number is not None:
                raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
            self.number = number
            # Read by Lightning between two batches; with several processes it is rank 0's that counts, for all.
            trainer._signal_connector.received_sigterm = True

        self.before = {number: signal.signal(number, stop) for number in SIGNALS}

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
