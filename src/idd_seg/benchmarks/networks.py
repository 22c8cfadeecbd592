"""The networks that a comparison is about: those of a configuration, and those of runs with what they reached."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from idd_seg.benchmarks.timing import Timing
from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.config.from_python import composed
from idd_seg.config.groups import options_of
from idd_seg.config.instantiate import make
from idd_seg.config.restore import BARE, student_from
from idd_seg.errors import ConfigError, UserError, suggest
from idd_seg.reporting.files import UnreadableError, number, part, read_mapping


@dataclass(frozen=True)
class Case:
    """A network to measure.

    Attributes:
        name: in tables.
        node: its configuration as plain values, from which it is built again elsewhere.
        network: in evaluation mode.
        miou: what its run has reached on held-out images, 0 to 1; None without a run.
    """

    name: str
    node: dict[str, Any]
    network: nn.Module
    miou: float | None = None


@dataclass
class Found:
    """What was measured of a network; `times` (seconds a batch) and `memory` (bytes) by way."""

    name: str
    parameters: int
    flops: int
    strides: list[int] | None
    miou: float | None
    times: dict[str, Timing] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def as_dict(self, batch: int) -> dict[str, Any]:
        """Return plain values for JSON: times in milliseconds a batch, speed in pictures a second."""
        ways = {
            way: {
                "ms": {"median": 1e3 * t.median, "low": 1e3 * t.low, "high": 1e3 * t.high},
                "images_per_second": batch / t.median,
                "peak_memory": self.memory.get(way),
            }
            for way, t in self.times.items()
        }
        own = {"name": self.name, "parameters": self.parameters, "flops": self.flops, "strides": self.strides}
        return {**own, "miou": self.miou, "ways": ways}


def cases_of(cfg: DictConfig) -> list[Case]:
    """Return the students, the teacher where there is one, and the runs of `cfg.runs`, which may take their names.

    Raises:
        UserError: if one can't be built, or a run can't be read or is of another data set.
    """
    names = _students(cfg)
    found = {name: _chosen(name, cfg) for name in names} or {"student": _configured("student", cfg.student, cfg)}
    if cfg.teacher.name != "none":
        if cfg.teacher.model is None:
            raise ConfigError(f"teacher={cfg.teacher.name} has no network without its file; choose another, or none")
        found["teacher"] = _configured(str(cfg.teacher.name), cfg.teacher.model, cfg)
    for name, folder in _runs(cfg).items():
        found[name] = _run(name, Path(folder), cfg)
    return list(found.values())


def _students(cfg: DictConfig) -> list[str]:
    """Return the choices of `student=` that `cfg.students` names."""
    if cfg.students is None:
        return []
    if not OmegaConf.is_list(cfg.students) or not cfg.students:
        raise ConfigError(f"students must be a list of choices, as in students=[r18,mbv3_small], got '{cfg.students}'")
    known = options_of("student")
    for name in cfg.students:
        if name not in known:
            raise ConfigError(f"students: there is no '{name}'{suggest(str(name), known)} They are {', '.join(known)}")
    return list(dict.fromkeys(map(str, cfg.students)))


def _chosen(name: str, cfg: DictConfig) -> Case:
    with composed(["data=shapes", f"student={name}", "pretrained=false"]) as whole:
        node = DictConfig(OmegaConf.to_container(whole.student, resolve=True))
    node.num_classes = cfg.data.num_classes
    return _configured(name, node, cfg)


def _configured(name: str, node: DictConfig, cfg: DictConfig) -> Case:
    """Build a network with random weights: they do not change its speed."""
    plain: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    if plain.get("num_classes") is None:
        plain["num_classes"] = cfg.data.num_classes
    plain.update({key: value for key, value in BARE.items() if key in plain})
    return Case(name, plain, make(plain, name).eval())


def _runs(cfg: DictConfig) -> dict[str, str]:
    runs = cfg.runs
    plain = OmegaConf.to_container(runs) if OmegaConf.is_config(runs) else runs or {}
    if not isinstance(plain, dict) or not all(isinstance(folder, str) for folder in plain.values()):
        raise ConfigError(f"runs must name folders, as in 'runs={{r18: outputs/a}}', got {runs}")
    return {str(name): str(folder) for name, folder in plain.items()}


def _run(name: str, folder: Path, cfg: DictConfig) -> Case:
    """Take the best student of a run, and its mIoU."""
    saved = read_checkpoint(folder / "checkpoints" / "best.ckpt")
    data = saved.config("data").get("name")
    if data != cfg.data.name:
        raise ConfigError(
            f"runs.{name}: '{folder}' was trained on data={data}, not on {cfg.data.name}; add data={data}"
        )
    try:
        miou = number(part(read_mapping(folder / "metrics.json"), "best").get("miou"))
    except UnreadableError as error:
        raise UserError(f"runs.{name}: '{folder}': {error}") from error
    if miou is None:
        raise UserError(f"runs.{name}: '{folder / 'metrics.json'}' has no best.miou; has the run finished?")
    return Case(name, {**saved.config("student"), **BARE}, student_from(saved), miou)


def flops(network: nn.Module, image_shape: tuple[int, int, int, int]) -> int:
    """Return the floating-point operations of convolutions and matrix products: two for each multiply-add.

    Nothing is computed: the network is copied without its values.
    """
    empty = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        empty(torch.empty(image_shape, device="meta"))
    return int(counter.get_total_flops())


def strides(network: nn.Module) -> list[int] | None:
    """Return the strides of the four levels, of a network of this program."""
    found = getattr(getattr(network, "backbone", None), "strides", None)
    return [int(stride) for stride in found] if found is not None else None


def picture_size(cfg: DictConfig) -> tuple[int, int]:
    """Return height and width: `cfg.size`, or what pictures of the data set have, scaled as the network sees them.

    Raises:
        ConfigError: for a size that is none, or a data set whose size is not known.
    """
    size, scale = cfg.size, 1.0
    if size is None:
        own = cfg.data.get("size")
        size = own if own is not None else cfg.picture_sizes.get(str(cfg.data.name))
        scale = float(cfg.data.get("image_scale") or 1.0)
    if size is None:
        raise ConfigError(f"the size of a picture of data={cfg.data.name} is not known; give one: size=[height,width]")
    sides = list(size) if OmegaConf.is_list(size) or isinstance(size, list) else []
    if len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and 1 <= s <= 20_000 for s in sides):
        raise ConfigError(f"size must be [height,width] in whole pixels, 1 to 20000, got {size}")
    height, width = (max(1, round(side * scale)) for side in sides)
    return height, width
