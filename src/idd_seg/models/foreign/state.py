"""The weights in a file from elsewhere, and what of them a network takes: all of it, or an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from idd_seg.errors import CheckpointError

# Where training programs keep the weights beside optimizer, epoch and scores.
ENTRIES = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
# What a wrapper puts before every name: DataParallel, torch.compile, a LightningModule.
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "net.")
COUNTER = ".num_batches_tracked"  # of BatchNorm; files of old versions have none, and nothing reads it here
SHOWN = 3


@dataclass(frozen=True)
class Loaded:
    """What became of a file's tensors.

    Attributes:
        used: number of tensors that the network took.
        left_out: number of tensors by the prefix of the part, used in training alone, that they belong to.
    """

    used: int
    left_out: Mapping[str, int]


def weights_in(content: Mapping[str, Any], path: object) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, without what wrappers put before the names.

    Raises:
        CheckpointError: if there are none.
    """
    found = _plain(content)
    for entry in ENTRIES:
        if found:
            break
        inner = content.get(entry)
        found = _plain(inner) if isinstance(inner, Mapping) else {}
    if not found:
        keys = ", ".join(str(key)[:40] for key in list(content)[:6])
        raise CheckpointError(f"'{path}' holds no weights that this program finds; its entries are {keys or 'none'}")
    return _unwrapped(found)


def load(network: nn.Module, weights: Mapping[str, Tensor], path: object, auxiliary: Sequence[str] = ()) -> Loaded:
    """Load weights into a network, in place.

    Args:
        auxiliary: prefixes of parts that predictions don't need, which the network has not.

    Raises:
        CheckpointError: that counts and names what is missing, unknown or of another shape.
    """
    expected = network.state_dict()
    used, left_out = dict(weights), dict[str, int]()
    for prefix in auxiliary:
        dropped = [name for name in used if name.startswith(prefix) and name not in expected]
        if dropped:
            left_out[prefix.rstrip(".")] = len(dropped)
        for name in dropped:
            del used[name]
    missing = [name for name in expected if name not in used and not name.endswith(COUNTER)]
    unknown = [name for name in used if name not in expected]
    shapes = [
        f"{name} is {tuple(used[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in used and used[name].shape != expected[name].shape
    ]
    problems = [_some(missing, "missing"), _some(unknown, "not known"), _some(shapes, "of another shape")]
    if said := [problem for problem in problems if problem]:
        raise CheckpointError(
            f"'{path}' is of another network than teacher.model (which has {len(expected)} tensors): {'; '.join(said)}"
        )
    network.load_state_dict(used, strict=False)  # BatchNorm's counters may be absent, nothing else
    return Loaded(len(used), left_out)


def _plain(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in weights)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _some(names: Sequence[str], what: str) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}"
