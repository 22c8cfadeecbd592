"""The LightningModule: a student, a frozen teacher, and the terms that connect them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from idd_seg.checkpoints.reader import FORMAT, KEY
from idd_seg.data.pipeline.options import TeacherLabels
from idd_seg.distillation.clipping import clip_gradients
from idd_seg.distillation.gradient_balance import GradientBalance
from idd_seg.distillation.label_use import Agreement, LabelUse, StepViews
from idd_seg.distillation.non_finite import NonFiniteGuard
from idd_seg.distillation.step_log import label_values, mean_over_ranks, term_values
from idd_seg.distillation.teacher_cache import TeacherCache
from idd_seg.distillation.teacher_times import TeacherTimes
from idd_seg.distillation.term_checks import ALWAYS, check_run, check_terms, naming, nothing_left, zero_path
from idd_seg.distributed.collectives import world_size
from idd_seg.errors import ConfigError, DataError, NonFiniteError
from idd_seg.losses.term import Term
from idd_seg.metrics.confusion import ConfusionMatrix, Scores, scores
from idd_seg.models.given import Given
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.teacher import FrozenTeacher, teacher_is_not_missing
from idd_seg.ops.seeds import mix
from idd_seg.types import Batch, Outputs

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


class Distiller(L.LightningModule):
    """Trains a student by the weighted sum of its terms.

    Logs every term raw (`train/<term>`) and weighted (`train/<term>_weighted`), their sum (`train/loss`), the weights
    that change (`train/<term>_weight`), and on held-out images `val/mIoU`, `val/accuracy` and what the terms measure
    (`val/<term>_<name>`). With `balance` also each term's gradient norm (`train/<term>_gradient`) and what its weight
    is multiplied by (`train/<term>_factor`). Where the teacher's classes stand in for labels, also the share of
    pictures without labels (`train/unlabelled`), of pixels of which the teacher is confident (`train/confident`,
    `val/confident`), and how often it then is right (`val/confident_right`).

    At a step at which its weight is 0 a term is not computed (its raw value is logged as NaN), nor is the teacher if no
    other term needs it.

    Args:
        student: the network that is trained.
        teacher: gives the terms their targets; None trains by the ground truth alone.
        terms: by name; those that need a teacher are refused without one.
        optimizer, scheduler: called once with the parameters, and with the optimizer; the scheduler steps every step.
        ignore_index: label value that takes no part.
        measure_batches: number of held-out batches on which the terms measure at each validation.
        seed: of dropout, drawn anew for each batch from (seed, batch, rank): runs of other terms, and runs that
            go on after a stop, see the same.
        metadata: plain values that checkpoints carry (configuration, class names), so that the student can be rebuilt.
        balance: scales the terms by the size of their gradients; None takes the weights as they are.
        teacher_cache: keeps the teacher's outputs for pictures that come again; None asks the teacher at every step.
        guard: of losses that are not finite; None ends the run at the first.
        label_use: what terms see of pictures without labels; None where all have labels.
        teacher_times: the steps at which the teacher is asked; at the others the terms that need it are left out.

    Attributes:
        validated: scores on held-out images, by step.

    Raises:
        ConfigError: without any term, if all stop, or for a term that needs a teacher where there is none; at the start
            of a run, if no term is left before its end.
    """

    def __init__(
        self,
        student: Segmenter | Given,
        teacher: FrozenTeacher | None,
        terms: Mapping[str, Term],
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        *,
        ignore_index: int = 255,
        measure_batches: int = 8,
        seed: int = 0,
        metadata: Mapping[str, Any] | None = None,
        balance: GradientBalance | None = None,
        guard: NonFiniteGuard | None = None,
        teacher_cache: TeacherCache | None = None,
        label_use: LabelUse | None = None,
        teacher_times: TeacherTimes = ALWAYS,
    ) -> None:
        super().__init__()
        check_terms(terms, has_teacher=teacher is not None, times=teacher_times)
        self.teacher_times = teacher_times
        self.student, self.teacher = student, teacher
        self.terms = nn.ModuleDict(dict(terms))
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.measure_batches, self.seed, self.metadata = measure_batches, seed, dict(metadata or {})
        self.confusion = ConfusionMatrix(student.num_classes, ignore_index)
        self.validated: dict[int, Scores] = {}
        for name, term in self.each_term().items():
            if teacher is not None:
                with naming(name):
                    term.bind(student.channels, teacher.channels)
        self.guard = guard or NonFiniteGuard()
        self.label_use = label_use or LabelUse(TeacherLabels(), ignore_index, unlabelled=False)
        self.agreement = Agreement()
        self.teacher_cache = teacher_cache
        self.balance = balance
        if balance is not None:
            balance.bind(terms)
        self.register_load_state_dict_post_hook(teacher_is_not_missing)  # type: ignore[no-untyped-call]

    def each_term(self) -> dict[str, Term]:
        """Return the terms by name."""
        return {name: term for name, term in self.terms.items() if isinstance(term, Term)}

    def on_train_start(self) -> None:
        check_run(self.each_term(), self.trainer.estimated_stepping_batches, self.teacher_times)

    def on_train_end(self) -> None:
        self.guard.settle()

    def on_validation_start(self) -> None:
        self.guard.settle()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # The batches of a training are counted through: see TrainingSampler.
        torch.manual_seed(mix(self.seed, batch_idx, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        weights = {name: self._weight(term) for name, term in self.each_term().items()}
        chosen = {name: term for name, term in self.each_term().items() if weights[name] > 0}
        if not chosen:
            nothing_left(weights, self.global_step)
        # BatchNorm's averages, which the pictures of a step that is left out must not reach.
        averages = [x.clone() for x in self.student.buffers()] if self.guard.skip else []
        student = self.student(batch.image)
        needed = any(term.needs_teacher for term in chosen.values())
        teacher = self._ask_teacher(batch, self.teacher_cache) if needed else None
        if not self.guard.sound({"student": student, "teacher": teacher}, batch.names, self.global_step):
            return self._left_out(averages)
        views = self.label_use.of_step(student, teacher, batch)
        raw = self._compare(chosen, views)
        weighted = {name: weights[name] * self._balanced(name) * value for name, value in raw.items()}
        total = torch.stack(list(weighted.values())).sum()
        if world_size() > 1:
            total = total + self._all_paths(student, complete=len(chosen) == len(weights))
        if not self.guard.usable(total, raw, batch.names, self.global_step):
            return self._left_out(averages)
        # Every value that is logged is a few launches on a GPU; the first step's is for whoever waits at a terminal.
        if self._logs_now() or self.global_step == 0:
            self._log_terms(total, raw, weighted, weights, views)
        return total

    def _weight(self, term: Term) -> float:
        """Return a term's weight at this step; 0 leaves it out."""
        weight = term.weight_at(self.global_step)
        return weight * self.teacher_times.factor(self.global_step) if term.needs_teacher else weight

    def _all_paths(self, student: Outputs, *, complete: bool) -> Tensor:
        """Return exactly 0, connected with all that is trained: DistributedDataParallel waits for every gradient.

        Args:
            complete: all terms are computed, so that what they train by the student's gradient is connected already.
        """
        # There may be no term that looks at the logits, or at those of the auxiliary head.
        nothing = student.logits[:0].sum()
        if student.auxiliary is not None:
            nothing = nothing + student.auxiliary[:0].sum()
        return nothing if complete else nothing + zero_path(self.parameters())

    def on_after_backward(self) -> None:
        if self.global_step == 0 and all(p.grad is None for p in self.student.classifier.parameters()):
            warnings.warn(
                f"none of the terms ({', '.join(self.terms)}) trains the student's classifier, and its answers stay "
                "those of random weights; add one that looks at the logits, e.g. ce",
                stacklevel=2,
            )

    @torch.no_grad()
    def _left_out(self, averages: Iterable[Tensor]) -> None:
        for buffer, before in zip(self.student.buffers(), averages, strict=True):
            buffer.copy_(before)

    def _logs_now(self) -> bool:
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return (self.global_step + 1) % every == 0

    def _ask_teacher(self, batch: Batch, cache: TeacherCache | None = None) -> Outputs | None:
        if self.teacher is None:
            return None
        if cache is not None:
            return cache.ask(self.teacher, batch)
        outputs: Outputs = self.teacher(batch.image)
        return outputs

    def _compare(self, terms: Mapping[str, Term], views: StepViews) -> dict[str, Tensor]:
        """Compute the unweighted terms, and what the balance wants to know of them."""
        raw = {}
        # Losses are computed in float32, whatever the precision of the networks.
        with torch.autocast(self.device.type, enabled=False):
            for name, term in terms.items():
                with naming(name):
                    seen = views.of(term)
                    term.update(*seen)
                    raw[name] = term(*seen)
            if self.balance is not None:
                trained = [p for p in self.student.parameters() if p.requires_grad]
                self.balance.measure(raw, trained, self.global_step)
        return raw

    def _balanced(self, name: str) -> Tensor | float:
        return 1.0 if self.balance is None else self.balance.factor(name)

    def _log_terms(
        self,
        total: Tensor,
        raw: Mapping[str, Tensor],
        weighted: Mapping[str, Tensor],
        weights: Mapping[str, float],
        views: StepViews,
    ) -> None:
        batch_size = len(views.whole[2].names)
        if world_size() > 1:
            total, raw, weighted = mean_over_ranks(total, raw, weighted)
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=batch_size)
        values = term_values(self.each_term(), raw, weighted, weights, self.balance) | label_values(views)
        if self.teacher_cache is not None:
            values["train/teacher_cached"] = self.teacher_cache.share()
        values["train/lr"] = torch.tensor(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        self.log_dict(values, batch_size=batch_size)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Judge the student; return its logits, and the teacher's where the terms measure, for callbacks."""
        outputs = self.student(batch.image)
        if not torch.isfinite(outputs.logits).all():
            # Before the checkpoint of this validation is written: the one before it stays the last.
            raise NonFiniteError(
                f"the student's logits are not finite at step {self.global_step}; batch: {', '.join(batch.names)}. "
                "A lower learning rate (optimizer.lr) may help."
            )
        self.confusion.update(outputs.logits, batch.label)
        teacher = self._ask_teacher(batch) if batch_idx < self.measure_batches else None
        if teacher is None:
            return {"student": outputs.logits}
        if self.label_use.active:
            found = self.label_use.classes_of(teacher, batch.label.shape[-2:])
            self.agreement.update(found, batch.label, self.label_use.ignore_index)
        for name, term in self.each_term().items():
            for key, value in term.measure(outputs, teacher, batch).items():
                # A float: Lightning averages the number of images over the ranks, an int without its rest.
                size: Any = float(len(batch.names))
                self.log(f"val/{name}_{key}", value, batch_size=size, sync_dist=True)
        return {"student": outputs.logits, "teacher": teacher.logits}

    def on_validation_epoch_end(self) -> None:
        counts = self.confusion.compute()
        self.confusion.reset()
        if not counts.any():
            raise DataError(
                "no pixel of the held-out pictures has a label that counts, so mIoU is not defined; do their masks "
                "hold the values of the classes (data.label_values, data.ignored, data.ignore_index), and is it the "
                "right split? python -m idd_seg.prepare shows the share of each class"
            )
        found = scores(counts)
        if not self.trainer.sanity_checking:
            self.validated[self.global_step] = found
        self.log("val/mIoU", found.miou, prog_bar=True)
        self.log("val/accuracy", found.accuracy)
        if self.label_use.active:
            self.log_dict({f"val/{name}": value for name, value in self.agreement.compute(self.device).items()})

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        try:
            optimizer = self.make_optimizer(trained)
            scheduler = self.make_scheduler(optimizer)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"optimizer or scheduler: {error}") from error
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        clip_gradients(self.trainer, optimizer, gradient_clip_val, gradient_clip_algorithm, self.guard.left_out)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.guard.settle()
        source = {} if self.teacher is None else self.teacher.source
        validated = {step: asdict(found) for step, found in self.validated.items()}
        state = {"teacher": source, "validated": validated, "skipped": self.guard.skipped}
        checkpoint[KEY] = {**self.metadata, "format": FORMAT, **state}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.guard.skipped = checkpoint[KEY].get("skipped", 0)
        stored = checkpoint[KEY].get("validated", {})
        self.validated = {int(step): Scores(**plain) for step, plain in stored.items()}
