"""What all networks from elsewhere share: how they are opened, and that they say what they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models.foreign.input import InputFormat
from idd_seg.models.foreign.state import load, weights_in
from idd_seg.models.pretrained.weights import check_weight_path, file_hash, read_foreign_weights, read_metadata
from idd_seg.types import Outputs

PROBE = 64  # pixels a side of the picture that a network is asked for its widths with


class Maker(Protocol):
    """Builds the network that the configuration describes; what is given here stands where it says nothing (null)."""

    def __call__(self, **changes: Any) -> ForeignNetwork: ...


@dataclass(frozen=True)
class Opened:
    """A network with its weights.

    Attributes:
        source: path, SHA-256 and kind of network, noted in checkpoints in the teacher's place.
        class_names: of the network's classes, if the file says them.
        said: what the user is to know of what was loaded and left out.
    """

    network: ForeignNetwork
    source: dict[str, str]
    class_names: list[str] | None = None
    said: list[str] = field(default_factory=list)


class ForeignNetwork(nn.Module):
    """A network whose modules bear the names of another project, so that its files fit as they are.

    A subclass implements `maps`; one that wraps a package's own network names it by `inner`.

    Args:
        num_classes: number of classes it was trained for; None where the file is to be counted, which `open` does.
        input: to its own normalisation from the data's.

    Raises:
        ConfigError: without a number of classes, or with fewer than two.
    """

    auxiliary: ClassVar[Sequence[str]] = ()  # prefixes of what predictions don't need
    classifiers: ClassVar[Sequence[str]] = ()  # tensors with a row for each class

    def __init__(self, num_classes: int | None, input: InputFormat) -> None:
        super().__init__()
        if num_classes is None or num_classes < 2:
            raise ConfigError(f"teacher.model.num_classes must be at least 2, got {num_classes}")
        self.num_classes, self.input = num_classes, input
        self._channels: dict[str, int] = {}

    @property
    def inner(self) -> nn.Module:
        """The network whose state has the other project's names."""
        return self

    @property
    def channels(self) -> dict[str, int]:
        """Width of each feature map, by its name in `Outputs.features`; asked of the network, once."""
        if not self._channels:
            weight = next(self.parameters())
            zeros = torch.zeros(1, 3, PROBE, PROBE, device=weight.device)
            training = self.training
            with torch.no_grad():
                found = self.eval()(zeros)
            self.train(training)
            self._channels = {name: int(x.shape[1]) for name, x in found.features.items()}
        return self._channels

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) float, as the data normalise it -> logits (N, K, h, w) and the maps named in `channels`."""
        logits, features = self.maps(self.input(image.float()).to(next(self.parameters()).dtype))
        return Outputs(logits, features)

    def maps(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits and feature maps of a picture in the network's own normalisation."""
        raise TypeError(f"{type(self).__name__} does not implement maps")

    @classmethod
    def open(cls, checkpoint: str, make: Maker) -> Opened:
        """Build the network with the weights of a file, which may be a stranger's.

        Raises:
            CheckpointError: for a file that is missing, a URL, damaged, hostile, or of another network.
        """
        path = check_weight_path(checkpoint)
        weights, metadata = weights_in(read_foreign_weights(path), path), read_metadata(path)
        rows = [len(weights[key]) for key in cls.classifiers if key in weights]
        if not rows:
            raise CheckpointError(
                f"'{path}' is of another network than teacher.model: it has no {' or '.join(cls.classifiers)}; its "
                f"{len(weights)} tensors begin with {', '.join(list(weights)[:3])}"
            )
        network = make(num_classes=rows[0])
        found = load(network.inner, weights, path, cls.auxiliary)
        said = [f"'{path}': {found.used} tensors loaded, {network.num_classes} classes"]
        said += [f"left out {n} tensors of {part}, which training alone uses" for part, n in found.left_out.items()]
        names = metadata.get("class_names")
        source = {"path": str(path.resolve()), "sha256": file_hash(path), "network": cls.__name__}
        return Opened(network, source, [str(n) for n in names] if isinstance(names, list) else None, said)
