"""Reading files of weights that a stranger may have written: nothing in them is ever executed."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

from idd_seg.errors import CheckpointError


def check_weight_path(path: Path | str) -> Path:
    """Return the path of an existing, non-empty file.

    Raises:
        CheckpointError: for a URL, or a file that is missing or empty.
    """
    text = str(path)
    if "://" in text or text.startswith(("http:/", "https:/", "s3:/", "gs:/", "hf:/")):
        raise CheckpointError(f"'{text}' is a URL; download the file, check where it comes from, and give its path")
    found = Path(text).expanduser()
    if not found.is_file():
        raise CheckpointError(f"there is no file '{text}'")
    if found.stat().st_size == 0:
        raise CheckpointError(f"'{text}' is empty (0 bytes); was writing it interrupted?")
    return found


def read_weights(path: Path | str) -> dict[str, Any]:
    """Read a safetensors file, or a PyTorch file by its restricted (weights only) reader.

    Raises:
        CheckpointError: if the file is missing, a URL, truncated, or holds anything but tensors and plain values.
    """
    import torch

    found = check_weight_path(path)
    try:
        if found.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(found))
        content = torch.load(found, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"'{found}' holds more than weights and plain values, or is damaged, and was not opened: "
            f"{_first_line(error)}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"'{found}' is damaged or truncated: {_first_line(error)}") from error
    except Exception as error:
        # safetensors and the unpickler raise types of their own for malformed headers; all mean the same to the user.
        raise CheckpointError(f"'{found}' is no readable weight file: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{found}' holds a {type(content).__name__}, not a dictionary of weights")
    return content


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
