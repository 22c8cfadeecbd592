"""What a search tries, from Hydra's sweep syntax."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Transformer
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from idd_seg.errors import ConfigError


@dataclass(frozen=True)
class Space:
    """The keys that are searched, and the options that all trials share (`key=value`)."""

    searched: Mapping[str, BaseDistribution]
    fixed: Sequence[str] = field(default_factory=tuple)

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Return the options of a trial."""
        return [*self.fixed, *(f"{key}={_text(value)}" for key, value in params.items())]

    def samples(self) -> list[list[str]]:
        """Return options that name every key and every choice at least once, to be composed before the first trial."""
        values = {key: _values(d) or [d.low] for key, d in self.searched.items()}  # type: ignore[attr-defined]
        count = max(len(found) if self._is_choice(key) else 1 for key, found in values.items())
        return [self.overrides({k: found[i % len(found)] for k, found in values.items()}) for i in range(count)]

    def _is_choice(self, key: str) -> bool:
        return isinstance(self.searched[key], CategoricalDistribution)

    def grid(self) -> dict[str, list[Any]]:
        """Return the values of each key.

        Raises:
            ConfigError: for a key with infinitely many.
        """
        grid = {key: _values(distribution) for key, distribution in self.searched.items()}
        for key, values in grid.items():
            if values is None:
                raise ConfigError(
                    f"hydra/sweeper/sampler=grid can't try all of '{key}', an interval; give choice(..) or range(..)"
                )
        return {key: values for key, values in grid.items() if values is not None}

    def described(self) -> dict[str, str]:
        """Return the searched keys as plain text, by which two spaces can be compared."""
        return {key: distribution_to_json(distribution) for key, distribution in sorted(self.searched.items())}


def read_space(overrides: Sequence[Override]) -> Space:
    """Sort parsed options into searched and shared ones; a later one takes the place of an earlier one of its key.

    Raises:
        ConfigError: if nothing is searched, or for a range that can't be.
    """
    last = {override.get_key_element(): override for override in overrides}
    searched = {key: distribution(override) for key, override in last.items() if override.is_sweep_override()}
    if not searched:
        raise ConfigError(
            "hydra/sweeper=optuna has nothing to search; say what on the command line, "
            "e.g. 'loss.idd_weight=interval(0.1,1)', or by hparams=..."
        )
    fixed = [
        key if override.is_delete() else f"{key}={override.get_value_element_as_str()}"
        for key, override in last.items()
        if not override.is_sweep_override()
    ]
    return Space(searched, fixed)


def distribution(override: Override) -> BaseDistribution:
    """Return what Optuna draws for `key=interval(..)`, `range(..)`, `choice(..)` or `a,b`; `tag(log, ..)` by logarithm.

    Raises:
        ConfigError: that names the key.
    """
    sweep, line = override.value(), override.input_line
    tags = set(getattr(sweep, "tags", ()))
    if unknown := tags - {"log"}:
        raise ConfigError(f"'{line}': the tag '{sorted(unknown)[0]}' is unknown; there is tag(log, ..)")
    try:
        if isinstance(sweep, IntervalSweep):
            low, high = sweep.start, sweep.end
            kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
            return kind(low, high, log="log" in tags)  # type: ignore[arg-type]
        if isinstance(sweep, RangeSweep):
            return _of_range(sweep, tags)
        if tags:
            raise ValueError("tag(log, ..) is for interval(..) and range(..)")
        if isinstance(sweep, ChoiceSweep) and not sweep.list:
            raise ValueError("there is nothing to choose from")
        choices: list[Any] = list(override.sweep_iterator(transformer=Transformer.encode))
        return CategoricalDistribution(choices)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"'{line}': {error}") from error


def _of_range(sweep: RangeSweep, tags: set[str]) -> BaseDistribution:
    values = list(sweep.range())
    if not values:
        raise ValueError("the range is empty; its end is not part of it")
    if "log" in tags:
        if sweep.step != 1 or not all(isinstance(value, int) for value in values):
            raise ValueError("a logarithmic range has the step 1 and whole numbers; interval(..) takes any")
        return IntDistribution(min(values), max(values), log=True)
    if all(isinstance(value, int) for value in values):
        return IntDistribution(min(values), max(values), step=abs(int(sweep.step)))
    return FloatDistribution(min(values), max(values), step=abs(float(sweep.step)))


def _values(distribution: BaseDistribution) -> list[Any] | None:
    """Return all values, or None where they are not countable."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        count = math.floor((distribution.high - distribution.low) / distribution.step + 1e-9) + 1
        return [round(distribution.low + i * distribution.step, 12) for i in range(count)]
    return None


def _text(value: Any) -> str:
    return "null" if value is None else str(value)
