"""A network that a program hands over: any module that gives logits takes part as a student or a teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from idd_seg.errors import ConfigError, first_line
from idd_seg.models.sizes import EVEN
from idd_seg.types import Outputs


class Given(nn.Module):
    """Makes a module's answers `Outputs`, and asks it for the widths of its feature maps.

    Args:
        network: (N, 3, H, W) float, normalised -> logits (N, K, h, w), at any resolution; or `Outputs`; or a mapping
            with `out` or `logits`, as torchvision's and other packages' have it; or an object with `logits`.
        num_classes: K.
        what: `student` or `teacher`, for messages.

    Attributes:
        channels: width of each feature map, by name; empty where the module gives logits alone.

    Raises:
        ConfigError: if the module gives something else, or fails with a picture of 64 x 96.
    """

    def __init__(self, network: nn.Module, num_classes: int, what: str) -> None:
        super().__init__()
        self.network, self.num_classes, self.what = network, num_classes, what
        self.frozen: Sequence[nn.Module] = ()
        found = self._tried()
        if found.logits.dim() != 4 or found.logits.shape[1] != num_classes:
            raise ConfigError(
                f"the {what} gives logits of {tuple(found.logits.shape)}; of {num_classes} classes they are "
                f"(N, {num_classes}, h, w)"
            )
        self.channels = {name: int(x.shape[1]) for name, x in found.features.items()}

    @property
    def classifier(self) -> nn.Module:
        """What gives the logits: of a module of which nothing else is known, all of it."""
        return self.network

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) float, normalised -> logits (N, K, h, w) and the maps named in `channels`."""
        weight = next((p for p in self.network.parameters() if p.is_floating_point()), image)
        return outputs_of(self.network(image.to(weight.dtype)), self.what)

    def _tried(self) -> Outputs:
        """Show the module an empty picture, in evaluation mode, and leave it as it was."""
        modes = {module: module.training for module in self.modules()}
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        try:
            with torch.no_grad():
                return self.eval()(torch.zeros(1, 3, *EVEN, device=device))  # type: ignore[no-any-return]
        except ConfigError:
            raise
        except Exception as error:  # whatever it may be: the module is not ours
            height, width = EVEN
            raise ConfigError(
                f"the {self.what} ({type(self.network).__name__}) fails with a picture (1, 3, {height}, {width}): "
                f"{first_line(error)}"
            ) from error
        finally:
            for module, training in modes.items():
                module.training = training


def outputs_of(found: Any, what: str) -> Outputs:
    """Return what a module has given as `Outputs`.

    Raises:
        ConfigError: if there are no logits in it.
    """
    if isinstance(found, Outputs):
        return found
    if isinstance(found, Mapping):
        found = next((found[key] for key in ("out", "logits") if key in found), found)
    logits = getattr(found, "logits", found)
    if not isinstance(logits, Tensor):
        raise ConfigError(
            f"the {what} gives a {type(found).__name__}; a network gives logits (N, K, h, w), idd_seg.types.Outputs, "
            "or a mapping with 'out' or 'logits'"
        )
    return Outputs(logits, {})


def digest_of(network: nn.Module) -> str:
    """Return a name for a network's weights: the SHA-256 of its state, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}\0{getattr(value, 'dtype', '')}\0".encode())
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def name_of(network: nn.Module) -> str:
    """Return the class of a module with where it is defined."""
    return f"{type(network).__module__}.{type(network).__qualname__}"
