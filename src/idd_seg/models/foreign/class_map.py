"""From a teacher's label set to the data's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from idd_seg.errors import ConfigError, suggest
from idd_seg.types import Outputs

Entry = int | str | Sequence[int | str]


class Mapped(nn.Module):
    """A network whose logits are those of the data's classes.

    Where several of its classes stand for one of the data's, their probabilities are summed: the logit is
    log sum exp of theirs. Softmax over the result is what the network believes, given that a pixel is of one of the
    mapped classes.

    Args:
        network: gives `Outputs`, and has `num_classes` and `channels`.
        class_map: for each class of the data an index or name of the network's, or a list of them.
        data_classes: names of the data's classes.
        class_names: of the network's classes; None where they are not known, which leaves indices alone.

    Raises:
        ConfigError: for a map of another length than the data's classes, an empty entry, or an index or name that the
            network has not.
    """

    def __init__(
        self,
        network: nn.Module,
        class_map: Sequence[Entry],
        data_classes: Sequence[str],
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if len(class_map) != len(data_classes):
            raise ConfigError(
                f"teacher.class_map has {len(class_map)} entries, the data have {len(data_classes)} classes: "
                f"{', '.join(data_classes)}"
            )
        theirs = int(network.num_classes)  # type: ignore[arg-type]
        self.network, self.num_classes = network, len(data_classes)
        self.groups = [
            _indices(entry, name, theirs, class_names) for entry, name in zip(class_map, data_classes, strict=True)
        ]

    @property
    def channels(self) -> dict[str, int]:
        """Width of each feature map, by its name."""
        return self.network.channels  # type: ignore[return-value]

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) -> the network's outputs, with logits (N, K, h, w) of the data's K classes."""
        outputs: Outputs = self.network(image)
        return Outputs(merged(outputs.logits, self.groups), outputs.features)


def merged(logits: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """(N, C, h, w), and for each of K classes its indices among the C -> (N, K, h, w)."""
    # Slices, not lists of indices, which would have to be copied to a GPU at each call.
    return torch.stack([_together(logits, group) for group in groups], dim=1)


def _together(logits: Tensor, group: Sequence[int]) -> Tensor:
    parts = [logits[:, i] for i in group]
    return parts[0] if len(parts) == 1 else torch.logsumexp(torch.stack(parts), dim=0)


def _indices(entry: Entry, data_class: str, count: int, names: Sequence[str] | None) -> list[int]:
    parts = list(entry) if isinstance(entry, Sequence) and not isinstance(entry, str) else [entry]
    where = f"teacher.class_map, the entry of '{data_class}'"
    if not parts:
        raise ConfigError(f"{where} is empty: at least one of the teacher's classes must stand for it")
    found = [_index(part, where, count, names) for part in parts]
    if len(set(found)) < len(found):
        raise ConfigError(f"{where} names a class twice: {parts}")
    return found


def _index(part: int | str, where: str, count: int, names: Sequence[str] | None) -> int:
    if isinstance(part, int) and not isinstance(part, bool):
        if not 0 <= part < count:
            raise ConfigError(f"{where} is {part}; the teacher's classes are 0 to {count - 1}")
        return part
    if not isinstance(part, str):
        raise ConfigError(
            f"{where} is {part}; an index or a name of the teacher's classes is wanted, or a list of them"
        )
    if names is None:
        raise ConfigError(
            f"{where} is '{part}', but the teacher's file has no names; give indices, or teacher.class_names"
        )
    if part not in names:
        raise ConfigError(f"{where}: the teacher has no class '{part}'{suggest(part, names)} It has {', '.join(names)}")
    return list(names).index(part)
