"""Losses that are not finite: found without making a GPU wait, named, and by option left out."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from idd_seg.distributed.collectives import sum_over_ranks
from idd_seg.errors import ConfigError, NonFiniteError
from idd_seg.ops.validation import require_whole
from idd_seg.types import Outputs

LOSS, OUTPUTS = "the loss is", "the networks' outputs are"
PENDING = 16  # steps that a GPU may be behind before it is waited for


@dataclass(frozen=True)
class _Values:
    """What one step's losses were; on a GPU a copy that arrives in its own time."""

    step: int
    terms: Sequence[str]
    files: Sequence[str]
    values: Tensor  # the sum, then the terms
    arrived: torch.cuda.Event | None

    @property
    def known(self) -> bool:
        return self.arrived is None or bool(self.arrived.query())  # type: ignore[no-untyped-call]

    def finite(self) -> bool:
        if self.arrived is not None:
            self.arrived.synchronize()
        return bool(torch.isfinite(self.values[0]))

    def message(self) -> str:
        bad = [f"{k} = {float(v)}" for k, v in zip(self.terms, self.values[1:], strict=True) if not torch.isfinite(v)]
        return f"step {self.step}: {', '.join(bad) or 'their sum'}; batch: {', '.join(self.files)}"


class NonFiniteGuard:
    """Looks at the loss of every step.

    On a CPU before the optimizer takes its step. On a GPU as soon as the value is known, a few steps later, and at the
    latest before a checkpoint is written or a validation begins: no checkpoint holds what came of it.

    Args:
        skip: number of steps of a run that may be left out, if their loss is not finite, instead of ending the run. A
            GPU is then waited for at every step.

    Raises:
        ConfigError: for a negative number.
    """

    def __init__(self, skip: int = 0) -> None:
        require_whole("skip_non_finite", skip, 0, error=ConfigError)
        self.skip, self.skipped = skip, 0
        self.left_out = False  # the step that was looked at last
        self.pending: deque[_Values] = deque()

    def usable(self, total: Tensor, raw: Mapping[str, Tensor], files: Sequence[str], step: int) -> bool:
        """Tell whether the step is to be taken.

        Args:
            total, raw: the loss, and its terms by name, scalars.

        Raises:
            NonFiniteError: that names the terms, the step and the files, if it, or an earlier one, is not finite and
                may not be left out.
        """
        found = _values(total, raw, files, step)
        if self.skip:
            return self._take(found)
        self.pending.append(found)
        while self.pending and (self.pending[0].known or len(self.pending) > PENDING):
            self._refuse(self.pending.popleft(), step)
        return True

    def sound(self, networks: Mapping[str, Outputs | None], files: Sequence[str], step: int) -> bool:
        """Tell whether the terms may see these outputs; asked only where steps may be left out.

        What a term keeps beyond the step, a memory, or a network that it trains itself, would never be sound again.

        Args:
            networks: by name; None for one that was not asked.

        Raises:
            NonFiniteError: as `usable`.
        """
        if not self.skip:
            return True
        asked = {name: outputs for name, outputs in networks.items() if outputs is not None}
        # -inf stands for a class that a teacher from elsewhere does not know.
        largest = {f"{name}'s logits": outputs.logits.detach().float().amax() for name, outputs in asked.items()}
        for name, outputs in asked.items():
            largest |= {f"{name}'s {tap}": x.detach().float().abs().amax() for tap, x in outputs.features.items()}
        return self._take(_values(torch.stack(list(largest.values())).amax(), largest, files, step), OUTPUTS)

    def settle(self) -> None:
        """Wait for what is not known yet.

        Raises:
            NonFiniteError: as `usable`.
        """
        while self.pending:
            self._refuse(self.pending.popleft(), None)

    def _take(self, found: _Values, what: str = LOSS) -> bool:
        # All processes leave a step out together: each would wait for the gradients of the others.
        bad = sum_over_ranks(torch.tensor(float(not found.finite()), device=found.values.device))
        self.left_out = bool(bad)
        if not bad:
            return True
        self.skipped += 1
        if self.skipped > self.skip:
            raise NonFiniteError(
                f"{what} not finite at {found.message()}. {self.skip} steps were left out before it, as "
                f"skip_non_finite={self.skip} allows. {ADVICE}"
            )
        warnings.warn(
            f"{what} not finite at {found.message()}; the step is left out ({self.skipped} of {self.skip})",
            stacklevel=2,
        )
        return False

    def _refuse(self, found: _Values, now: int | None) -> None:
        if found.finite():
            return
        late = "" if found.arrived is None else f" (found {'later' if now is None else f'at step {now}'})"
        raise NonFiniteError(
            f"{LOSS} not finite at {found.message()}{late}. No checkpoint holds what came of it. {ADVICE}"
        )


ADVICE = (
    "A lower learning rate (optimizer.lr), a lower weight of the term, or float32 (trainer.precision=32-true) may "
    "help; skip_non_finite=N leaves out up to N such steps"
)


def _values(total: Tensor, raw: Mapping[str, Tensor], files: Sequence[str], step: int) -> _Values:
    values = torch.stack([total.detach().float(), *(value.detach().float() for value in raw.values())])
    if not values.is_cuda:
        return _Values(step, list(raw), list(files), values, None)
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return _Values(step, list(raw), list(files), copy, arrived)
