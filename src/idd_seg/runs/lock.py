"""Who may train in a run folder: one run at a time, and never over another run by mistake."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from idd_seg.config.option_roles import is_as_before, may_change
from idd_seg.data.pipeline.labels import with_table
from idd_seg.errors import Pruned, RunFolderError, TimeUp, UserError, message_of
from idd_seg.runs.data_files import Fingerprints, read_files, refuse_other_files, write_files
from idd_seg.runs.provenance import describe_run, note_state

LOCK = ".lock"
LOCK_TIMEOUT = 0.5  # seconds; whoever asks whether a run goes on holds the lock for a moment
RESULTS = ("checkpoints", "metrics.json", "metrics.csv", "exhibits", "pictures")
# Of no use to tell whether a run lies there, but they would be taken for the new run's.
BESIDE = ("position_reader.safetensors", "tensorboard", "rank*.log")


@contextmanager
def run_lock(cfg: DictConfig, files: Fingerprints | None = None) -> Iterator[float | None]:
    """Take the folder `cfg.run_dir` for a run, and note in its `run.json` how the run ends.

    Args:
        files: of the data set, by split; None leaves them out of the comparison with a run that is there.

    Yields:
        The best mIoU if the run there is finished already and `resume=auto`, else None.

    Raises:
        RunFolderError: if another run is writing to it, or if it holds one that `resume` does not allow to go on.
    """
    folder = Path(cfg.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT)
    except Timeout:
        raise RunFolderError(f"'{folder}' is in use by a run that goes on; choose another hydra.run.dir") from None
    try:
        finished = _look(cfg, folder, files)
        if finished is not None:
            yield finished
            return
        describe_run(cfg, folder)
        if files is not None:
            write_files(folder, files)
        try:
            yield None
        except BaseException as error:
            _note(folder, _state_of(error), _text_of(error))
            raise
        _note(folder, "finished")
    finally:
        lock.release()


def _note(folder: Path, state: str, text: str | None = None) -> None:
    """Note how a run ended; what keeps it from being written must not hide that."""
    try:
        note_state(folder, state, text)
    except (OSError, ValueError) as error:
        warnings.warn(f"'{folder / 'run.json'}' can't be brought up to date ({error})", stacklevel=2)


def is_locked(folder: Path) -> bool | None:
    """Tell whether a run is writing to a folder at this moment; None where that can't be known.

    A run that was killed leaves `running` in its `run.json`, and its folder free.
    """
    if not (folder / LOCK).is_file():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # a folder of somebody else
        return None
    lock.release()
    return False


def finished_already(cfg: DictConfig) -> bool:
    """Tell whether `resume=auto` will find a finished run of data in the same place: nothing else needs a look."""
    folder = Path(cfg.run_dir)
    if cfg.get("resume") != "auto" or not (folder / "metrics.json").is_file():
        return False
    try:
        stored = OmegaConf.select(OmegaConf.load(folder / "config.yaml"), "data.root")
    except Exception:  # `run_lock` says what is wrong with it
        return True
    return bool(stored == OmegaConf.select(cfg, "data.root"))


def best_of(folder: Path) -> float:
    """Return the best mIoU of a finished run."""
    return float(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["best"]["miou"])


def _look(cfg: DictConfig, folder: Path, files: Fingerprints | None) -> float | None:
    """Make the folder ready, or return the result that lies there."""
    if not any((folder / name).exists() for name in RESULTS):
        return None
    if cfg.get("resume") is None:
        raise RunFolderError(
            f"'{folder}' holds a run already: resume=auto goes on with it (or leaves it, if it is finished), "
            "resume=never trains anew and removes it; or choose another hydra.run.dir"
        )
    if cfg.resume == "never":
        for pattern in (*RESULTS, *BESIDE):
            for path in folder.glob(pattern):
                _remove(path)
        return None
    # Where the data set lies does not matter if its files are compared.
    _refuse_another(cfg, folder, moved=files is not None and read_files(folder) is not None)
    refuse_other_files(folder, files or {})
    try:
        return best_of(folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"'{folder / 'metrics.json'}' can't be read ({error}); remove it to let the run go on"
        ) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _refuse_another(cfg: DictConfig, folder: Path, *, moved: bool) -> None:
    """Refuse to go on with a run of another configuration; by option, data sets may lie elsewhere."""
    path = folder / "config.yaml"
    try:
        stored = _compared(OmegaConf.load(path), moved=moved)
    except Exception as error:
        raise RunFolderError(
            f"'{path}' can't be read, so it is not known which run lies there ({error}); choose another "
            "hydra.run.dir, or resume=never, which removes that run"
        ) from error
    wanted = _compared(cfg, moved=moved)
    # The option that others take their value from first: seed before data.seed.
    for key in sorted({*stored, *wanted}, key=lambda key: (key.count("."), key)):
        if may_change(key) or _same(key, stored.get(key), wanted.get(key)):
            continue
        before, now = (_terms(options) for options in (stored, wanted))
        if key.startswith("loss.") and before != now:
            key, stored, wanted = "loss", {"loss": before}, {"loss": now}
        raise RunFolderError(
            f"'{folder}' holds a run with {key}={stored.get(key)}, not {wanted.get(key)}; resume=auto goes on with "
            "the same options alone. Choose another hydra.run.dir, or resume=never, which removes that run"
        )


def _terms(options: Mapping[str, Any]) -> str:
    """Return the terms of a configuration by dotted key, as `loss=` chooses them."""
    names = [key.split(".")[1] for key in options if key.startswith("loss.") and key.endswith("._target_")]
    return f"[{','.join(names)}]"


def _same(key: str, stored: Any, wanted: Any) -> bool:
    """Tell whether a run resumes with the same option; a class of this program may have moved to another file."""
    if key.endswith("_target_") and str(stored).startswith("idd_seg.") and str(wanted).startswith("idd_seg."):
        return str(stored).rpartition(".")[2] == str(wanted).rpartition(".")[2]
    return bool(stored == wanted)


def _compared(cfg: Any, *, moved: bool) -> dict[str, Any]:
    """Return a configuration's values by dotted key, as those of earlier versions have them."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    found = _flat({**plain, "data": with_table(plain["data"])} if isinstance(plain.get("data"), Mapping) else plain)
    found = {key: value for key, value in found.items() if not is_as_before(key, value)}
    if found.get("data.masks", "indices") == "indices":
        found.pop("data.palette", None)  # drawn, and not learnt from: classes without a colour had others before
    root = found.get("data.root")
    if moved and isinstance(root, str):
        inside = {key: value for key, value in found.items() if isinstance(value, str) and key.startswith("data.")}
        found.update({key: value.replace(root, "(data.root)") for key, value in inside.items()})
    return found


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    found: dict[str, Any] = {}
    for key, child in node.items():
        found.update(_flat(child, f"{prefix}.{key}" if prefix else str(key)))
    return found


def _state_of(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | TimeUp):
        return "interrupted"
    return "pruned" if isinstance(error, Pruned) else "failed"


def _text_of(error: BaseException) -> str | None:
    if isinstance(error, UserError):
        return message_of(error)
    return f"{type(error).__name__}: {error}" if isinstance(error, Exception) else None
