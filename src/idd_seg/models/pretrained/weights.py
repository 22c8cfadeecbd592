"""Reading files of weights that a stranger may have written: nothing in them is ever executed."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from idd_seg.errors import CheckpointError, first_line

CARD = "idd_seg"  # our own entry in the metadata of a safetensors file
# What other programs keep beside their weights, and pickle by name: counters, histories of losses, options. Nothing of
# these packages is called or imported; each name becomes an object that takes whatever it is given, and forgets it.
FORGOTTEN = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.ndarray", "numpy.dtype"),
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool", "UInt8")),
    *("builtins.getattr", "__builtin__.getattr", "_codecs.encode"),  # of the histories' methods and arrays
    "argparse.Namespace",
    *("pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib._local.PosixPath"),
    *("easydict.EasyDict", "yacs.config.CfgNode", "addict.addict.Dict"),
    *("mmengine.logging.history_buffer.HistoryBuffer", "mmengine.config.config.ConfigDict"),
    *("mmcv.utils.config.ConfigDict", "mmengine.config.config.Config", "mmcv.utils.config.Config"),
)


class Forgotten:
    """Stands for an object that is not wanted; takes a pickle's arguments, state and items, and keeps none."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Forgotten:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


def check_weight_path(path: Path | str) -> Path:
    """Return the path of an existing, non-empty file.

    Raises:
        CheckpointError: for a URL, or a file that is missing or empty.
    """
    refuse_url(path)
    found = Path(str(path)).expanduser()
    if found.is_dir():
        refuse_run_folder(found)
        raise CheckpointError(f"'{path}' is a folder; give a file in it")
    if not found.is_file():
        raise CheckpointError(f"there is no file '{path}'")
    if found.stat().st_size == 0:
        raise CheckpointError(f"'{path}' is empty (0 bytes); was writing it interrupted?")
    return found


def refuse_run_folder(folder: Path) -> None:
    """Raise a CheckpointError for a run folder, that names the checkpoints in it."""
    if there := sorted(folder.glob("checkpoints/*.ckpt")):
        names = " or ".join(f"'{path}'" for path in there if path.stem in ("best", "last"))
        raise CheckpointError(f"'{folder}' is a run folder; give a checkpoint of it: {names or there[0]}")


def refuse_url(path: Path | str) -> None:
    """Raise a CheckpointError for a URL: what comes over the network is fetched by the user, knowingly."""
    text = str(path)
    if "://" in text or text.startswith(("http:/", "https:/", "s3:/", "gs:/", "hf:/")):
        raise CheckpointError(f"'{text}' is a URL; download the file, check where it comes from, and give its path")


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
            f"{first_line(error)}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"'{found}' is damaged or truncated: {first_line(error)}") from error
    except Exception as error:
        # safetensors and the unpickler raise types of their own for malformed headers; all mean the same to the user.
        raise CheckpointError(f"'{found}' is no readable weight file: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{found}' holds a {type(content).__name__}, not a dictionary of weights")
    return content


def read_foreign_weights(path: Path | str) -> dict[str, Any]:
    """Read a file of another program as `read_weights` does, and forget what lies beside its weights (`FORGOTTEN`).

    Raises:
        CheckpointError: as `read_weights`; also for any other name that the file would have called.
    """
    with _forgetting():
        return read_weights(path)


@contextmanager
def _forgetting() -> Iterator[None]:
    """Let the restricted reader take the forgotten names, each as a class of ours."""
    from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

    before = get_safe_globals()
    # The reader knows what is allowed by the module and name that it bears.
    names = [name.rpartition(".") for name in FORGOTTEN]
    stand_ins = [type(name, (Forgotten,), {"__module__": module, "__qualname__": name}) for module, _, name in names]
    try:
        add_safe_globals(stand_ins)  # type: ignore[arg-type]
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(before)


def read_metadata(path: Path) -> Mapping[str, Any]:
    """Return what this program wrote into the metadata of a safetensors file; empty for any other file.

    Raises:
        CheckpointError: if it can't be read.
    """
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(CARD)
        metadata = {} if text is None else json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is no readable weight file: {first_line(error)}") from error
    return metadata if isinstance(metadata, Mapping) else {}


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
