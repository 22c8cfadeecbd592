"""A term whose loss jumps far above what it was, or far above that of a guess: said before it ends in silence."""

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

    A training that its very first steps throw off has no such median, so cross-entropy is held against that of a guess
    as well: the logarithm of the number of classes, and the auxiliary head's share. Warns at the first logged value
    that is `above_guess` times as much.

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
                self._hold_against_guess(name, value, math.log(pl_module.student.num_classes) * _share(term, pl_module))
            self._judge(name, value, batch.names)

    def _hold_against_guess(self, name: str, value: float, guess: float) -> None:
        if self.warned or not value > self.above_guess * guess > 0:
            return
        self.warned = True
        warnings.warn(
            f"loss.{name} is {value:.3g} at step {self.step}, {value / guess:.0f} times that of a guess ({guess:.3g}): "
            "the network has been thrown off, and any weights that it began with are lost. Start again with AdamW "
            "(optimizer=adamw; of a teacher teacher_optimizer=adamw), a lower learning rate (optimizer.lr; "
            "teacher.training.optimizer.lr) or, of a student, trainer.gradient_clip_val=5 or lower weights of the "
            "terms; it is said once",
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
                    "learning rate (optimizer.lr), trainer.gradient_clip_val=5, or a lower weight of the term may "
                    "help; it is said once",
                    stacklevel=2,
                )
        if value == value:  # NaN where the term was not computed
            seen.append(value)


def _share(term: CrossEntropy, module: Distiller) -> float:
    """Return how often a guess counts in the term: once, and by its weight in an auxiliary head."""
    return 1.0 + (term.auxiliary if getattr(module.student, "auxiliary", None) is not None else 0.0)
