"""A term whose loss jumps far above what it was, or starts far above a guess: said before it ends in silence."""

from __future__ import annotations

import math
import statistics
import warnings
from collections import deque
from collections.abc import Sequence
from typing import Any

import lightning as L

from idd_seg.distillation.module import Distiller
from idd_seg.errors import ConfigError
from idd_seg.losses.ce import CrossEntropy
from idd_seg.ops.validation import require_above, require_whole

LEAST = 10  # logged values before one is judged


class LossSpike(L.Callback):
    """Warns at the first logged value of a term that is `factor` times the median of the last `window` ones.

    A training that its very first steps throw off has no such median: it is warned of where one of the first `LEAST`
    logged values of cross-entropy is above `above_guess` times that of a guess, the logarithm of the number of classes.

    It looks at what is logged (every `trainer.log_every_n_steps` steps): no GPU is waited for at the steps between.

    Args:
        factor, above_guess: above 1.

    Raises:
        ConfigError: for a factor or window that is too small.
    """

    def __init__(self, factor: float = 100.0, window: int = 50, above_guess: float = 5.0) -> None:
        require_above("callbacks.loss_spike.factor", factor, 1, error=ConfigError)
        require_above("callbacks.loss_spike.above_guess", above_guess, 1, error=ConfigError)
        require_whole("callbacks.loss_spike.window", window, LEAST, error=ConfigError)
        self.factor, self.window, self.above_guess = factor, window, above_guess
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
        for name, term in pl_module.each_term().items():
            logged = trainer.callback_metrics.get(f"train/{name}")
            if logged is None:
                continue
            value = abs(float(logged))
            if isinstance(term, CrossEntropy):
                self._judge_start(name, value, pl_module.student.num_classes)
            self._judge(name, value, batch.names)

    def _judge_start(self, name: str, value: float, classes: int) -> None:
        guess = math.log(classes)
        if self.warned or len(self.seen.get(name, ())) >= LEAST or not value > self.above_guess * guess > 0:
            return
        self.warned = True
        warnings.warn(
            f"loss.{name} is {value:.3g} at step {self.step}, {value / guess:.0f} times that of a guess ({guess:.3g}, "
            f"the logarithm of {classes} classes): the first steps have thrown the student off, and what it had "
            "learnt before is lost. Start again with optimizer=adamw, a lower learning rate (optimizer.lr), "
            "trainer.gradient_clip_val=5 or lower weights of the terms; it is said once",
            stacklevel=2,
        )

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
