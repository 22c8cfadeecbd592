"""Who may train in a run folder, and what its `run.json` says of how a run ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from idd_seg.errors import DataError, Pruned, RunFolderError
from idd_seg.runs.lock import best_of, run_lock

# The results a run leaves, in the order in which it makes them.
LEFT = ("metrics.csv", "checkpoints/last.ckpt", "pictures/predictions.png", "exhibits/exhibits.json", "metrics.json")


@pytest.fixture(autouse=True)
def _no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking it takes longer than all the rest."""
    monkeypatch.setattr("idd_seg.runs.provenance.git_state", lambda folder: None)


def config(folder: Path, **changes: Any) -> DictConfig:
    plain: dict[str, Any] = {
        "run_dir": str(folder),
        "output_dir": "outputs",
        "cache_dir": "cache",
        "name": "one",
        "seed": 0,
        "resume": None,
        "data": {"batch_size": 4, "num_workers": 0, "size": [32, 32], "root": None},
        "loss": {"idd_weight": 0.5},
        "logger": {"csv": {"run_dir": "${run_dir}"}},
        "callbacks": {"progress": {"_target_": "a.b"}},
    }
    cfg = OmegaConf.create(plain)
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    return cfg


def leave(folder: Path, *names: str) -> None:
    """Write what a run leaves; `metrics.json` with a best mIoU of 0.25."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"best": {"miou": 0.25}}' if name == "metrics.json" else "of the first run")


def a_run(folder: Path, *names: str, **changes: Any) -> None:
    with run_lock(config(folder, **changes)) as finished:
        assert finished is None
        leave(folder, *names)


def state(folder: Path) -> tuple[str, str | None]:
    described = json.loads((folder / "run.json").read_text())
    return described["state"], described["error"]


@pytest.mark.parametrize("resume", [None, "auto", "never"])
def test_a_free_folder_is_made_and_taken(tmp_path: Path, resume: str | None) -> None:
    folder = tmp_path / "a" / "b"
    with run_lock(config(folder, resume=resume)) as finished:
        assert finished is None
        assert state(folder) == ("running", None)
        assert OmegaConf.load(folder / "config.yaml").logger.csv.run_dir == str(folder)
    assert state(folder) == ("finished", None)


def test_what_is_no_result_does_not_make_a_run(tmp_path: Path) -> None:
    """Hydra's files lie there before the run begins, and a run that failed at once leaves a description alone."""
    for name in (".hydra/config.yaml", "train.log", "config.yaml", "run.json"):
        leave(tmp_path, name)
    with run_lock(config(tmp_path)) as finished:
        assert finished is None


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1], timeout=0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".lock")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("resume", [None, "auto", "never"])
def test_a_folder_in_use_is_refused(held: subprocess.Popen[str], tmp_path: Path, resume: str | None) -> None:
    leave(tmp_path, *LEFT)
    with pytest.raises(RunFolderError, match=r"in use.*hydra\.run\.dir"), run_lock(config(tmp_path, resume=resume)):
        pass
    assert all((tmp_path / name).exists() for name in LEFT)
    assert not (tmp_path / "run.json").exists()


def test_a_killed_run_frees_its_folder(held: subprocess.Popen[str], tmp_path: Path) -> None:
    held.kill()
    held.wait()
    with run_lock(config(tmp_path)) as finished:
        assert finished is None


def test_the_folder_is_free_again_when_a_run_has_failed(tmp_path: Path) -> None:
    with pytest.raises(DataError), run_lock(config(tmp_path)):
        raise DataError("no such image")
    with run_lock(config(tmp_path)) as finished:
        assert finished is None


@pytest.mark.parametrize("name", LEFT)
def test_a_folder_with_a_run_is_refused(tmp_path: Path, name: str) -> None:
    a_run(tmp_path, name)
    with pytest.raises(RunFolderError, match=r"resume=auto.*resume=never"), run_lock(config(tmp_path, seed=1)):
        pass
    assert (tmp_path / name).exists()
    assert OmegaConf.load(tmp_path / "config.yaml").seed == 0


def test_never_removes_the_old_results_and_trains_anew(tmp_path: Path) -> None:
    a_run(tmp_path, *LEFT)
    leave(tmp_path, ".hydra/config.yaml", "notes.txt")
    with run_lock(config(tmp_path, resume="never", seed=1)) as finished:
        assert finished is None
        assert not [name for name in LEFT if (tmp_path / name).exists()]
        assert (tmp_path / "notes.txt").exists()
        assert OmegaConf.load(tmp_path / "config.yaml").seed == 1


@pytest.mark.parametrize("name", ["position_reader.safetensors", "rank1.log", "tensorboard/events"])
def test_never_removes_what_terms_ranks_and_loggers_left(tmp_path: Path, name: str) -> None:
    a_run(tmp_path, *LEFT, name)
    with run_lock(config(tmp_path, resume="never")):
        assert not (tmp_path / name).exists()


def test_auto_returns_the_result_of_a_finished_run(tmp_path: Path) -> None:
    a_run(tmp_path, *LEFT)
    before = (tmp_path / "run.json").read_bytes()
    with run_lock(config(tmp_path, resume="auto")) as finished:
        assert finished == 0.25 == best_of(tmp_path)
    assert (tmp_path / "run.json").read_bytes() == before


def test_auto_goes_on_with_a_run_that_is_not_finished(tmp_path: Path) -> None:
    a_run(tmp_path, *LEFT[:2])
    with run_lock(config(tmp_path, resume="auto")) as finished:
        assert finished is None
        assert state(tmp_path) == ("running", None)
    assert all((tmp_path / name).exists() for name in LEFT[:2])


OTHERS = {
    "loss__idd_weight": 1.0,
    "seed": 7,
    "data__size": [64, 32],
    "data__batch_size": 8,
    "data__root": "elsewhere",
    "loss__kd_weight": 2.0,
    "optimizer__lr": 0.1,
}


def test_auto_names_the_terms_of_a_run_of_others(tmp_path: Path) -> None:
    def terms(*names: str) -> dict[str, Any]:
        return {name: {"_target_": f"idd_seg.losses.{name}.A", "weight": 1.0} for name in names}

    a_run(tmp_path, "checkpoints/last.ckpt", loss=terms("ce", "kd", "idd"))
    wanted = config(tmp_path, resume="auto", loss=terms("ce", "kd", "cwd"))
    with pytest.raises(RunFolderError, match=r"loss=\[ce,kd,idd\], not \[ce,kd,cwd\]"), run_lock(wanted):
        pass


@pytest.mark.parametrize("key", OTHERS)
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "not finished"])
def test_auto_refuses_another_configuration(tmp_path: Path, key: str, finished: bool) -> None:
    a_run(tmp_path, *(LEFT if finished else LEFT[:2]))
    cfg = config(tmp_path, **{"resume": "auto", key: OTHERS[key]})
    dotted = key.replace("__", ".")
    before = OmegaConf.select(config(tmp_path), dotted)
    with pytest.raises(RunFolderError) as caught, run_lock(cfg):
        pass
    message = str(caught.value)
    assert f"{dotted}={before}" in message
    assert f"not {OTHERS[key]};" in message
    assert str(tmp_path) in message
    assert OmegaConf.load(tmp_path / "config.yaml") == OmegaConf.create(
        OmegaConf.to_container(config(tmp_path), resolve=True)
    )


SAME = {
    "logger__wandb": {"mode": "offline"},
    "logger": {},
    "callbacks": {"other": {"_target_": "c.d"}},
    "data__num_workers": 8,
    "output_dir": "elsewhere",
    "cache_dir": "elsewhere",
    "data__cache_dir": "elsewhere",
    "data__cache": "disk",
    "teacher_cache__folder": "elsewhere",
    "name": "two",
    "data__recipe__lr__adamw": 2e-3,  # of a default that is not this run's: what it uses is in optimizer.lr
}


@pytest.mark.parametrize("key", SAME)
def test_auto_accepts_other_places_and_watchers(tmp_path: Path, key: str) -> None:
    a_run(tmp_path, *LEFT)
    with run_lock(config(tmp_path, **{"resume": "auto", key: SAME[key]})) as finished:
        assert finished == 0.25


def test_other_colours_are_accepted_where_masks_hold_none(tmp_path: Path) -> None:
    """Classes without a colour had others in an earlier version."""
    a_run(
        tmp_path / "values", "metrics.json", "checkpoints/last.ckpt", data__palette=[[0, 0, 0]], data__masks="indices"
    )
    new = {"resume": "auto", "data__palette": [[1, 1, 1]]}
    with run_lock(config(tmp_path / "values", data__masks="indices", **new)) as finished:
        assert finished == 0.25
    a_run(tmp_path / "colours", "metrics.json", "checkpoints/last.ckpt", data__palette=[[0, 0, 0]], data__masks="rgb")
    with (
        pytest.raises(RunFolderError, match=r"data\.palette"),
        run_lock(config(tmp_path / "colours", data__masks="rgb", **new)),
    ):
        pass


def test_auto_accepts_a_run_from_before_reduce_zero_label(tmp_path: Path) -> None:
    a_run(tmp_path, "metrics.json", "checkpoints/last.ckpt")
    with run_lock(config(tmp_path, resume="auto", data__reduce_zero_label=False)) as finished:
        assert finished == 0.25
    with (
        pytest.raises(RunFolderError, match=r"data\.ignored=None, not \[0\]|data\.label_values"),
        run_lock(config(tmp_path, resume="auto", data__reduce_zero_label=True, data__num_classes=2)),
    ):
        pass


def test_auto_accepts_the_table_that_reduce_zero_label_stands_for(tmp_path: Path) -> None:
    a_run(tmp_path, "metrics.json", data__num_classes=2, data__ignored=[0], data__label_values={1: 0, 2: 1})
    new = config(tmp_path, resume="auto", data__num_classes=2, data__reduce_zero_label=True)
    with run_lock(new) as finished:
        assert finished == 0.25


def test_auto_accepts_a_folder_that_was_moved(tmp_path: Path) -> None:
    a_run(tmp_path / "a", *LEFT)
    (tmp_path / "a").rename(tmp_path / "b")
    with run_lock(config(tmp_path / "b", resume="auto")) as finished:
        assert finished == 0.25


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"best": null}', '{"best": {"miou": "high"}}', "\x80"])
def test_metrics_that_can_not_be_read_are_named(tmp_path: Path, text: str) -> None:
    a_run(tmp_path, *LEFT)
    (tmp_path / "metrics.json").write_bytes(text.encode("latin-1"))
    with (
        pytest.raises(RunFolderError, match=r"metrics\.json' can't be read .*; remove it"),
        run_lock(config(tmp_path, resume="auto")),
    ):
        pass


@pytest.mark.parametrize("text", [None, "", "a: [", "- 1", "text", "\x80", "a: ${b}"])
def test_a_configuration_that_can_not_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    a_run(tmp_path, *LEFT)
    path = tmp_path / "config.yaml"
    path.unlink()
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RunFolderError) as caught, run_lock(config(tmp_path, resume="auto")):
        pass
    assert "resume=never" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DataError("no such image"), ("failed", "no such image")),
        (RuntimeError("out of memory"), ("failed", "RuntimeError: out of memory")),
        (OSError(28, "No space left"), ("failed", "OSError: [Errno 28] No space left")),
        (KeyboardInterrupt(), ("interrupted", None)),
        (SystemExit(143), ("interrupted", None)),
        (Pruned("pruned at step 4"), ("pruned", "Pruned: pruned at step 4")),
    ],
    ids=repr,
)
def test_run_json_says_how_a_run_ended(tmp_path: Path, error: BaseException, expected: tuple[str, str | None]) -> None:
    with pytest.raises(type(error)), run_lock(config(tmp_path)):
        raise error
    assert state(tmp_path) == expected


def test_run_json_forgets_the_failure_when_the_run_went_on(tmp_path: Path) -> None:
    with pytest.raises(DataError), run_lock(config(tmp_path)):
        raise DataError("no such image")
    leave(tmp_path, "metrics.csv")
    with run_lock(config(tmp_path, resume="auto")):
        assert state(tmp_path) == ("running", None)
    assert state(tmp_path) == ("finished", None)
