"""One look at a configuration: what can be known to be wrong is said before anything is trained, fetched or made."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.checkpoints.start import fitting
from idd_seg.config.instantiate import make, make_data, make_terms, plain, term_weights
from idd_seg.config.option_types import check_types
from idd_seg.config.ranges import check_ranges, words_of
from idd_seg.config.teacher import load_teacher
from idd_seg.config.teacher_plan import (
    in_teachers_words,
    kept_checkpoint,
    kept_folder,
    named_checkpoint,
    needing,
    teacher_config,
)
from idd_seg.data.class_proposal import unnamed
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.fingerprint import Fingerprint
from idd_seg.data.pipeline.heads import look_at_pixels
from idd_seg.data.pipeline.label_check import in_both, sample
from idd_seg.data.unlabelled.checks import look_at_unlabelled
from idd_seg.distillation.label_use import check_label_use
from idd_seg.distillation.teacher_times import teacher_times
from idd_seg.distillation.term_checks import bind_classes, check_run, check_terms, naming
from idd_seg.errors import ConfigError, DataError, MissingDataError, UserError
from idd_seg.losses.term import Term
from idd_seg.models.freeze import check_parts
from idd_seg.models.given import Given, digest_of, name_of
from idd_seg.models.pretrained.imagenet import normalisation_of, pretrained_overlay
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.teacher import FrozenTeacher

FilesOf = Callable[[Path], str | None]
# The groups of a run whose options are compared with the types that constructors declare.
GROUPS = (
    *("data", "loss", "student", "optimizer", "scheduler", "speed", "trainer", "callbacks", "logger"),
    *("balance", "quantize", "teacher_cache"),
)


@dataclass(frozen=True)
class GivenParts:
    """What a program hands over in place of what the configuration would build; None leaves it to the configuration.

    Attributes:
        student, teacher: modules that `Given` takes. The student is trained in place, of the teacher a copy is frozen.
    """

    student: nn.Module | None = None
    teacher: nn.Module | None = None
    data: SegmentationDataModule | None = None

    @property
    def groups(self) -> list[str]:
        """The groups of the configuration that only describe what is given."""
        return [name for name in ("student", "teacher", "data") if getattr(self, name) is not None]


NOTHING_GIVEN = GivenParts()


@dataclass(frozen=True)
class TeacherRun:
    """A teacher that has to be trained first: its own configuration, what the look at it has made, and its place."""

    cfg: DictConfig
    checked: Checked
    kept: Path


@dataclass(frozen=True)
class Checked:
    """What the look at a configuration has made on its way, for the run to use.

    Attributes:
        data: with its files found.
        terms: by name, those of a weight above 0; not bound yet.
        files: of the splits that a training reads.
        teacher: loaded from the file that the configuration names, or that is kept; None where there is none yet.
        teacher_run: how the teacher is trained, if it must be.
        student: that a program has given; None where the configuration says how to build it.
    """

    data: SegmentationDataModule
    terms: dict[str, Term]
    files: Mapping[str, Fingerprint]
    teacher: FrozenTeacher | None = None
    teacher_run: TeacherRun | None = None
    student: Given | None = None


def preflight(cfg: DictConfig, files_of: FilesOf, given: GivenParts = NOTHING_GIVEN) -> Checked:
    """Look at all that a run is told, its teacher's training and the files that options name included.

    The values of `ranges.RULES` have been looked at before, since that needs no PyTorch.

    Args:
        files_of: digest of the training files of a run, by its folder; None where that is not known.
        given: by a program, in place of what the configuration describes.

    Raises:
        UserError: for the first thing that is wrong.
    """
    if "loss" not in cfg:
        raise ConfigError("there is no term; choose some, e.g. loss=[ce,kd,cwd]")
    check_parts(parts_of(cfg))
    term_weights(cfg.loss)  # by the names that users give, before the types of what refers to them
    for group in GROUPS:
        if group not in given.groups:
            check_types(cfg[group], group)
    _look_at_quantisation(cfg)
    terms = make_terms(cfg.loss, typed=False)
    times = teacher_times(cfg.teacher)
    check_terms(terms, has_teacher=cfg.teacher.name != "none", times=times)
    check_run(terms, cfg.trainer.max_steps, times)  # before a teacher is trained for it
    data = given.data or make_data(cfg, typed=False)
    check_label_use(terms, data.teacher_labels, data.unlabelled_share, has_teacher=cfg.teacher.name != "none")
    if data.batch_size < 2:
        raise ConfigError("data.batch_size=1: the heads' BatchNorm over pooled maps needs at least 2 images")
    _find_files(data)
    look_at_pixels(data)
    _look_at_labels(data)
    bind_classes(terms, data)
    own = None if given.student is None else Given(given.student, data.num_classes, "student")
    channels = _dry_student(cfg).channels if own is None else own.channels
    if own is None:
        _look_at_normalisation(cfg)
    files = {split: data.fingerprint(split) for split in data.read_splits}
    if not needing(terms):
        return Checked(data, terms, files, student=own)
    teacher, teacher_run = _look_at_teacher(cfg, data, files["train"].digest, files_of, given.teacher)
    theirs = _dry_network(cfg.teacher.model, "teacher.model") if teacher is None else teacher
    _bind_dry(terms, channels, theirs.channels)
    return Checked(data, terms, files, teacher, teacher_run, own)


def _find_files(data: SegmentationDataModule) -> None:
    try:
        data.setup("fit")
    except MissingDataError as error:
        raise MissingDataError(
            f"{error}; python -m idd_seg.prepare data={data.name} fetches what anyone may, and says what is missing"
        ) from error


def _look_at_labels(data: SegmentationDataModule) -> None:
    """Look at a sample of the labels, and at what both splits have in common.

    Raises:
        DataError: for labels from which nothing can be learnt.
    """
    splits = ("train",) if data.held_out is not None else ("train", "val")
    found = [finding for split in splits for finding in sample(data, split)]
    if fatal := [finding.text for finding in found if finding.fatal]:
        raise DataError(fatal[0])
    for text in [
        *(finding.text for finding in found),
        in_both(data),
        look_at_unlabelled(data),
        unnamed(data.class_names),
    ]:
        if text is not None:
            warnings.warn(text, stacklevel=2)


def _look_at_teacher(
    cfg: DictConfig, data: SegmentationDataModule, files: str, files_of: FilesOf, given: nn.Module | None
) -> tuple[FrozenTeacher | None, TeacherRun | None]:
    """Open the teacher's file, or take what is given; look at the run that is to train it where there is none."""
    if given is not None:
        source = {"path": f"given by a program: {name_of(given)}", "sha256": digest_of(given)}
        network = Given(copy.deepcopy(given), data.num_classes, "teacher")
        return FrozenTeacher(network, source, cfg.teacher.get("scale", 1.0)), None
    checkpoint = named_checkpoint(cfg)
    if checkpoint is not None:
        return load_teacher(checkpoint, cfg, data), None
    own = teacher_config(cfg)
    kept = kept_folder(own, files, files_of)
    if kept_checkpoint(kept).is_file():
        return load_teacher(str(kept_checkpoint(kept)), cfg, data), None
    try:
        check_ranges(own)
        return None, TeacherRun(own, preflight(own, files_of), kept)
    except UserError as error:
        raise in_teachers_words(error) from error


def _dry_student(cfg: DictConfig) -> Segmenter:
    """Build the student without its weights, and look for the weights that it will start from.

    A file that `student.weights` names is loaded once here: whether it fits is not known before.
    """
    weights, pretrained, name = cfg.student.get("weights"), cfg.student.get("pretrained"), cfg.student.backbone
    if cfg.get("init_from"):
        network = _dry_network(cfg.student, "student")
        if begins(cfg):
            fitting(network.state_dict(), read_checkpoint(cfg.init_from))
        return network
    if weights is not None:
        with _untouched_random_numbers():
            student: Segmenter = make(cfg.student, "student", typed=False)
            return student
    network = _dry_network(cfg.student, "student")
    if pretrained and isinstance(name, str):
        pretrained_overlay(name, pretrained, None, plain(cfg.student.get("options")))
    return network


def begins(cfg: DictConfig) -> bool:
    """Tell whether a run takes the weights of `init_from`: one that resumes has its own."""
    return bool(cfg.get("init_from")) and not (Path(str(cfg.run_dir)) / "checkpoints" / "last.ckpt").is_file()


def parts_of(cfg: DictConfig) -> list[str]:
    """Return what `freeze` names.

    Raises:
        ConfigError: if it is neither a word nor a list of words.
    """
    return [] if cfg.get("freeze") is None else words_of(cfg, "freeze")


def _look_at_quantisation(cfg: DictConfig) -> None:
    """Refuse what rounded layers can't be trained with.

    Raises:
        ConfigError: without a finished student, or with a compiled one, which would not be seen to be rounded.
    """
    if cfg.quantize is None:
        return
    if not cfg.get("init_from"):
        raise ConfigError(
            "quantize=int8 trains a finished student on; name it: init_from=RUN/checkpoints/best.ckpt, "
            "with a learning rate of about a tenth"
        )
    if cfg.speed.compile:
        raise ConfigError("quantize=int8 and compile=true exclude each other; choose one")


def _look_at_normalisation(cfg: DictConfig) -> None:
    """Tell who starts from ImageNet weights that were trained on pictures of another mean and deviation."""
    name, student = cfg.student.backbone, cfg.student
    given = student.get("weights") or student.get("pretrained")
    if not isinstance(name, str) or not given or cfg.get("init_from") or cfg.data.channels != 3:
        return
    wanted = normalisation_of(name)
    if wanted is not None and wanted != (tuple(cfg.data.mean), tuple(cfg.data.std)):
        mean, std = (f"[{','.join(f'{value:g}' for value in values)}]" for values in wanted)
        warnings.warn(
            f"the ImageNet weights of '{name}' were trained with mean {mean} and deviation {std}, and data.mean and "
            f"data.std are others; take 'data.mean={mean}' 'data.std={std}'",
            stacklevel=2,
        )


def _dry_network(node: DictConfig, where: str) -> Segmenter:
    """Build a network without weights: on no device, or on the CPU if it computes with numbers while it is built."""
    bare = OmegaConf.create({**plain(node), "pretrained": False, "weights": None})
    try:
        with torch.device("meta"):
            network: Segmenter = make(bare, where, typed=False)
    except Exception:  # what is wrong with the options is said again below
        with _untouched_random_numbers():
            network = make(bare, where, typed=False)
    return network


def _bind_dry(terms: Mapping[str, Term], student: Mapping[str, int], teacher: Mapping[str, int]) -> None:
    """Bind copies of the terms to the widths of both networks: a tap that is not there, or a file that does not fit."""
    with torch.device("meta"), warnings.catch_warnings(), _untouched_random_numbers():
        warnings.simplefilter("ignore")  # of weights that are loaded into nothing
        for name, term in terms.items():
            with naming(name):
                copy.deepcopy(term).bind(student, teacher)


@contextmanager
def _untouched_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield
