"""What is logged of a training step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from idd_seg.distillation.gradient_balance import GradientBalance
from idd_seg.distillation.label_use import StepViews
from idd_seg.distributed.collectives import sum_over_ranks, world_size
from idd_seg.losses.term import Term

Values = dict[str, Tensor | float]


def term_values(
    terms: Mapping[str, Term],
    raw: Mapping[str, Tensor],
    weighted: Mapping[str, Tensor],
    weights: Mapping[str, float],
    balance: GradientBalance | None,
) -> Values:
    """Return what is logged of each term: raw and weighted, the weights that change, and what balances them.

    A term that was not computed is NaN: what is not logged any more would be repeated until the epoch ends.
    """
    values: Values = {}
    for name, term in terms.items():
        values[f"train/{name}"] = raw[name].detach() if name in raw else float("nan")
        values[f"train/{name}_weighted"] = weighted[name].detach() if name in raw else 0.0
        if not term.schedule.constant:
            values[f"train/{name}_weight"] = weights[name]
        if balance is not None:
            # A copy: the averages themselves move on.
            values[f"train/{name}_gradient"] = balance.norm(name).clone()
            values[f"train/{name}_factor"] = balance.factor(name)
    return values


def label_values(views: StepViews) -> Values:
    """Return the share of pictures without labels, and of the pixels of which the teacher was asked and confident.

    All processes must call it.
    """
    values: Values = {}
    batch = views.whole[2]
    if views.use.unlabelled:
        labelled = len(batch.names) if batch.labelled is None else batch.labelled
        values["train/unlabelled"] = 1 - labelled / len(batch.names)
    if views.use.active:
        if views.confident is None:
            values["train/confident"] = float("nan")
        else:
            taken, asked = sum_over_ranks(torch.stack(views.confident))
            values["train/confident"] = taken / asked.clamp(min=1)
    return values


def mean_over_ranks(
    total: Tensor, raw: Mapping[str, Tensor], weighted: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Average what is logged over the processes, by one message."""
    values = torch.stack([total, *raw.values(), *weighted.values()]).detach()
    mean, *others = (sum_over_ranks(values) / world_size()).unbind()
    return mean, dict(zip(raw, others, strict=False)), dict(zip(weighted, others[len(raw) :], strict=True))
