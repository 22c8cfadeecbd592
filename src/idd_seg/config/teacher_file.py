"""A teacher that this program has trained: its file says what network it is, and how pictures come to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from idd_seg.checkpoints.reader import Saved, read_checkpoint
from idd_seg.config.instantiate import plain
from idd_seg.config.restore import refuse_foreign
from idd_seg.config.teacher_plan import AUTO, is_foreign
from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models.foreign.input import InputFormat
from idd_seg.types import Outputs

NAME = "checkpoint"  # teacher=checkpoint
SIZES = ("options", "head", "output_stride", "num_classes")  # by which networks of the same name differ


def take_network(cfg: DictConfig) -> None:
    """Write into `teacher.model` the network that a checkpoint says it is, unless another one was chosen by name.

    Raises:
        ConfigError: for teacher=checkpoint without a file.
        CheckpointError: if the file is unusable, or names anything outside this program.
    """
    teacher = cfg.teacher
    if teacher.name == "none" or is_foreign(teacher):
        return
    path = teacher.get("checkpoint")
    if path in (None, AUTO):
        if teacher.name == NAME:
            raise ConfigError(
                f"teacher={NAME} is read from a file; give it as teacher=PATH, e.g. RUN/checkpoints/best.ckpt"
            )
        return
    if teacher.name != NAME and _chosen():
        return
    if not Path(str(path)).expanduser().is_file():
        return  # whoever needs the teacher says so; a twin does not
    saved = read_checkpoint(str(path))
    node = dict(saved.config("student"))
    refuse_foreign(node, saved.path)
    if network_name(node) != network_name(plain(teacher.model) or {}):
        print(f"teacher: {network_name(node)}, as '{saved.path}' says")
    with open_dict(cfg):
        cfg.teacher.model = OmegaConf.create(node)


def _chosen() -> bool:
    """Tell whether the command line names the teacher's network."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else ["teacher="]
    return any(word.lstrip("+").startswith(("teacher=", "teacher.model")) for word in words)


def named(error: CheckpointError, saved: Saved, cfg: DictConfig) -> CheckpointError:
    """Return the error of a file that is of another network, with the names of both."""
    try:
        node = saved.config("student")
    except CheckpointError:
        return error
    model = plain(cfg.teacher.model)
    theirs, ours = network_name(node), network_name(model)
    if theirs == ours:
        differ = [key for key in SIZES if node.get(key) != model.get(key)]
        theirs, ours = (f"{ours} of {', '.join(f'{k}={each.get(k)}' for k in differ)}" for each in (node, model))
    return CheckpointError(
        f"{error}. The file is of {theirs}, and teacher={cfg.teacher.name} is {ours}; teacher={saved.path} takes the "
        "network from the file"
    )


def network_name(node: Mapping[str, Any]) -> str:
    """Return in words what network a configuration describes."""
    backbone, head = node.get("backbone"), node.get("head")
    parts = [_last(part) if isinstance(part, Mapping) else str(part) for part in (backbone, head) if part is not None]
    return " with ".join(parts) or _last(node)


def _last(node: Mapping[str, Any]) -> str:
    return str(node.get("name") or node.get("_target_", "?")).rpartition(".")[2]


class Renormalised(nn.Module):
    """A network that sees pictures as it was trained to, where the student's are normalised otherwise."""

    def __init__(self, network: nn.Module, like: InputFormat) -> None:
        super().__init__()
        self.network, self.like = network, like
        self.channels: Mapping[str, int] = network.channels  # type: ignore[assignment]

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W), as the student's data normalise it -> the network's outputs."""
        return self.network(self.like(image))  # type: ignore[no-any-return]


def as_trained(network: nn.Module, saved: Saved, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Return a network that takes pictures normalised by `mean` and `std`, whatever it was trained with."""
    try:
        data = saved.config("data")
    except CheckpointError:
        return network
    own_mean, own_std = (_numbers(data.get(key), given) for key, given in (("mean", mean), ("std", std)))
    if (own_mean, own_std) == (list(mean), list(std)):
        return network
    return Renormalised(network, InputFormat(own_mean, own_std, list(mean), list(std)))


def _numbers(found: Any, instead: Sequence[float]) -> list[float]:
    return [float(value) for value in found or instead]


def scale_of(saved: Saved, image_scale: float) -> float:
    """Return the scale of the pictures that a network was trained on, relative to the student's."""
    try:
        return float(saved.config("data").get("image_scale") or image_scale) / image_scale
    except (CheckpointError, TypeError, ValueError):
        return 1.0
