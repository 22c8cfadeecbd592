"""Reading the checkpoints of this program, which a stranger may have written."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from idd_seg.errors import CheckpointError
from idd_seg.models.pretrained.weights import check_weight_path, file_hash, read_weights

KEY = "idd_seg"  # our own entry in a Lightning checkpoint
FORMAT = 1
STUDENT = "student."  # where the student stands in the state of the LightningModule


@dataclass(frozen=True)
class Saved:
    """A checkpoint, read without executing anything in it."""

    path: Path
    weights: Mapping[str, Tensor]
    metadata: Mapping[str, Any]
    sha256: str

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes it was trained for, if it says so."""
        names = self.metadata.get("class_names")
        return [str(name) for name in names] if isinstance(names, list) else None

    def config(self, group: str) -> Mapping[str, Any]:
        """Return a group of the configuration that the checkpoint was trained with.

        Raises:
            CheckpointError: if it has none.
        """
        config = self.metadata.get("config")
        node = config.get(group) if isinstance(config, Mapping) else None
        if not isinstance(node, Mapping):
            raise CheckpointError(f"'{self.path}' does not say what its {group} was; was it written by idd_seg.train?")
        return node

    def load_into(self, network: nn.Module, what: str) -> None:
        """Load the student's weights into a network that only predicts: without auxiliary head.

        Raises:
            CheckpointError: that names the first differences, if the network is another one.
        """
        ours = {
            k.removeprefix(STUDENT): v
            for k, v in self.weights.items()
            if isinstance(k, str) and k.startswith(STUDENT) and not k.startswith(f"{STUDENT}auxiliary.")
        }
        problems = differences(ours, network.state_dict())
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise CheckpointError(
                f"'{self.path}' is of another network than the {what}: {'; '.join(problems[:3])}{more}"
            )
        network.load_state_dict(ours)


def differences(ours: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Say in words which weights are missing, not known, or of another shape; none where a network takes them."""
    problems = [f"{k} is missing" for k in expected if k not in ours]
    problems += [f"{k} is not known" for k in ours if k not in expected]
    problems += [
        f"{k} is {_shape(ours[k])} instead of {_shape(v)}"
        for k, v in expected.items()
        if k in ours and _shape(ours[k]) != _shape(v)
    ]
    return problems


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def read_checkpoint(path: Path | str) -> Saved:
    """Read a checkpoint of `idd_seg.train`; only tensors and plain values are ever accepted.

    Raises:
        CheckpointError: if the file is missing, a URL, damaged, hostile, or not of this program.
    """
    found = check_weight_path(path)
    check_records(found)
    content = read_weights(found)
    metadata, weights = content.get(KEY), content.get("state_dict")
    if not isinstance(metadata, Mapping) or not isinstance(weights, Mapping):
        raise CheckpointError(f"'{found}' is not a checkpoint of idd_seg.train")
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"'{found}' has format {metadata.get('format')}; this program reads format {FORMAT}")
    return Saved(found, weights, metadata, file_hash(found))


def check_records(path: Path) -> None:
    """Compare each record of a PyTorch file with its checksum; PyTorch writes them, and reads without a look at them.

    Files that are no archives are left to whoever reads them.

    Raises:
        CheckpointError: for a damaged record, a file that was cut off, or records that are packed.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                raise CheckpointError(f"'{path}' holds packed records, as PyTorch writes none; it is not opened")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, struct.error, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"'{path}' is damaged or truncated: {str(error) or type(error).__name__}") from error
    if damaged is not None:
        raise CheckpointError(f"'{path}' is damaged: its record '{damaged}' is not what was written")


def previous_of(path: Path) -> Path:
    """Return where the checkpoint before `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def latest_whole(path: Path) -> Saved | None:
    """Read the checkpoint that a run goes on from: `path`, or the one before it if that is damaged; None without any.

    Raises:
        CheckpointError: if all that is there can't be used.
    """
    there = [found for found in (path, previous_of(path)) if found.is_file()]
    problems = [] if path.is_file() else [f"there is no file '{path}'"]
    for found in there:
        try:
            saved = read_checkpoint(found)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if problems:
            warnings.warn(f"{problems[0]}; the run goes on from '{found}', which was written before it", stacklevel=2)
        return saved
    if there:
        raise CheckpointError(
            f"the run can't go on: {'; '.join(problems)}. resume=never removes the run and trains anew"
        )
    return None
