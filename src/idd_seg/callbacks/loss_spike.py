"""A term whose loss jumps far above what it was: said once, before it ends in NaN or in silence."""

from __future__ import annotations

import statistics
import warnings
from collections import deque
from collections.abc import Sequence
from typing import Any

import lightning as L

from idd_seg.distillation.module import Distiller
from idd_seg.errors import ConfigError
from idd_seg.ops.validation import require_above, require_whole

LEAST = 10  # logged values before one is judged


class LossSpike(L.Callback):
    """Warns at the first logged value of a term that is `factor` times the median of the last `window` ones.

    It looks at what is logged (every `trainer.log_every_n_steps` steps): no GPU is waited for at the steps between.

    Args:
        factor: above 1.

    Raises:
        ConfigError: for a factor or window that is too small.
    """

    def __init__(self, factor: float = 100.0, window: int = 50) -> None:
        require_above("callbacks.loss_spike.factor", factor, 1, error=ConfigError)
        require_whole("callbacks.loss_spike.window", window, LEAST, error=ConfigError)
        self.factor, self.window = factor, window
        self.seen: dict[str, deque[float]] = {}
        self.step = 0
        self.warned = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.global_step % every or trainer.global_step == self.step or not isinstance(pl_module, Distiller):
            return
        self.step = trainer.global_step
        for name in pl_module.each_term():
            value = trainer.callback_metrics.get(f"train/{name}")
            if value is not None:
                self._judge(name, abs(float(value)), batch.names)

    def _judge(self, name: str, value: float, files: Sequence[str]) -> None:
        seen = self.seen.setdefault(name, deque(maxlen=self.window))
        if len(seen) >= LEAST and not self.warned:
            usual = statistics.median(seen)
            if value > self.factor * usual > 0:
                self.warned = True
                warnings.warn(
                    f"loss.{name} explodes: {value:.3g} at step {self.step}, {value / usual:.0f} times its median of "
                    f"the last {len(seen)} logged values ({usual:.3g}); batch: {', '.join(files)}. A lower "
                    "learning rate (optimizer.lr), trainer.gradient_clip_val=1, or a lower weight of the term may "
                    "help; it is said once",
                    stacklevel=2,
                )
        if value == value:  # NaN where the term was not computed
            seen.append(value)
