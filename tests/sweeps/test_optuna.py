"""A search by Optuna through Hydra: what it draws, what it survives, and how it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from idd_seg.errors import ConfigError
from idd_seg.sweeps.optuna import OptunaSweeper
from tests.helpers import clean_error
from tests.sweeps.run_app import found, search, states

pytest.importorskip("optuna")

INTERVAL = "x=interval(0,5)"


def test_the_best_value_and_every_trial_are_written_and_shown(tmp_path: Path) -> None:
    result = search(tmp_path, INTERVAL)
    assert result.returncode == 0, result.stderr
    content = found(tmp_path)
    values = [trial["value"] for trial in content["trials"]]
    drawn = [trial["params"]["x"] for trial in content["trials"]]
    assert values == [pytest.approx(-((x - 3) ** 2)) for x in drawn]
    assert all(0 <= x <= 5 for x in drawn)
    assert len(set(drawn)) == 4
    assert content["best"]["value"] == max(values)
    assert f"best: trial {content['best']['trial']}" in result.stdout
    assert [trial["folder"] for trial in content["trials"]] == ["0", "1", "2", "3"]
    assert all((tmp_path / "sweep" / str(number) / "starts").is_file() for number in range(4))


def test_the_direction_can_be_turned(tmp_path: Path) -> None:
    assert search(tmp_path, INTERVAL, "hydra.sweeper.direction=minimize").returncode == 0
    content = found(tmp_path)
    assert content["best"]["value"] == min(trial["value"] for trial in content["trials"])


def test_a_failed_trial_and_one_without_a_number_do_not_end_the_search(tmp_path: Path) -> None:
    result = search(
        tmp_path, "hydra/sweeper/sampler=grid", "x=choice(1,2)", "mode=choice(fine,fail,no_number)", trials=9
    )
    assert result.returncode == 0, result.stderr
    content = found(tmp_path)
    by_mode = {
        mode: {trial["state"] for trial in content["trials"] if trial["params"]["mode"] == mode}
        for mode in ("fine", "fail", "no_number")
    }
    assert by_mode == {"fine": {"complete"}, "fail": {"fail"}, "no_number": {"fail"}}
    assert len(content["trials"]) == 6  # the whole grid, once
    notes = {trial["params"]["mode"]: trial["note"] for trial in content["trials"]}
    assert "this job fails on purpose" in notes["fail"]
    assert "no finite number" in notes["no_number"]
    assert content["best"]["params"]["x"] == 2


def test_a_search_without_success_ends_with_an_error(tmp_path: Path) -> None:
    message = clean_error(search(tmp_path, INTERVAL, "mode=no_number", trials=2))
    assert "no trial of the search succeeded" in message
    assert states(tmp_path) == ["fail", "fail"]


def test_a_killed_search_goes_on_with_the_trial_that_was_running(tmp_path: Path) -> None:
    assert search(tmp_path, INTERVAL, "mode=kill_once").returncode == -9
    result = search(tmp_path, INTERVAL, "mode=kill_once", "resume=auto")
    assert result.returncode == 0, result.stderr
    assert states(tmp_path) == ["complete"] * 4
    starts = [(tmp_path / "sweep" / str(number) / "starts").read_text().split() for number in range(4)]
    assert starts == [["None"], ["None"], ["None", "auto"], ["auto"]]
    drawn = [trial["params"]["x"] for trial in found(tmp_path)["trials"]]
    assert len(set(drawn)) == 4


def test_without_resume_the_trial_of_a_dead_process_counts_for_nothing(tmp_path: Path) -> None:
    assert search(tmp_path, INTERVAL, "mode=kill_once").returncode == -9
    assert search(tmp_path, INTERVAL, "mode=kill_once").returncode == 0
    assert states(tmp_path) == ["complete", "complete", "fail", "complete", "complete"]
    trials = found(tmp_path)["trials"]
    assert trials[2]["note"] == "interrupted"
    assert trials[3]["params"] == trials[2]["params"]  # tried again


def test_one_process_sweeps_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    with FileLock(tmp_path / "sweep" / ".sweep.lock"):
        assert "another process sweeps in 'sweep'" in clean_error(search(tmp_path, INTERVAL))


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    node = OmegaConf.create({"_target_": "optuna.pruners.NopPruner"})
    sweeper = OptunaSweeper("maximize", 1, None, "study.journal", None, node, node, OmegaConf.create({}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'idd-seg\[optuna\]'"):
        sweeper.setup(hydra_context=None, task_function=print, config=node)  # type: ignore[arg-type]


def test_finished_trials_count_towards_the_number(tmp_path: Path) -> None:
    assert search(tmp_path, INTERVAL, trials=2).returncode == 0
    first = found(tmp_path)["trials"]
    assert search(tmp_path, INTERVAL, trials=3).returncode == 0
    assert found(tmp_path)["trials"][:2] == first
    assert len(found(tmp_path)["trials"]) == 3
    assert search(tmp_path, INTERVAL, trials=3).returncode == 0
    assert len(found(tmp_path)["trials"]) == 3


def test_another_space_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    assert search(tmp_path, INTERVAL, trials=1).returncode == 0
    assert "searched something else" in clean_error(search(tmp_path, "x=interval(0,6)", trials=2))


def test_a_database_keeps_the_study_too(tmp_path: Path) -> None:
    storage = "hydra.sweeper.storage='sqlite:///study.db'"
    assert search(tmp_path, INTERVAL, storage, "hydra.sweeper.study_name=mine", trials=2).returncode == 0
    assert (tmp_path / "study.db").is_file()
    assert found(tmp_path)["study"] == "mine"


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    options = ("hydra.sweeper.storage=nosuch://bar", "hydra.sweeper.study_name=mine")
    assert "hydra.sweeper.storage=nosuch://bar can't be opened" in clean_error(search(tmp_path, INTERVAL, *options))


@pytest.mark.parametrize("sampler", ["random", "cmaes"])
def test_other_samplers(tmp_path: Path, sampler: str) -> None:
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    result = search(tmp_path, f"hydra/sweeper/sampler={sampler}", "x=tag(log,interval(1,5))", trials=3)
    assert result.returncode == 0, result.stderr
    assert states(tmp_path) == ["complete"] * 3


MISTAKES = {
    "y=choice(1,2)": "there is no option 'y'",
    "x=2": "nothing to search",
    "x=interval(3,1)": "'x=interval(3,1)'",
    "x=tag(cubic,interval(1,2))": "the tag 'cubic' is unknown",
    "hydra.sweeper.n_trials=0": "hydra.sweeper.n_trials must be a whole number",
    "hydra.sweeper.direction=up": "must be maximize or minimize",
    "hydra.sweeper.storage=sqlite:///study.db": "needs a name for the search",
    "hydra/sweeper/pruner=median": "choose it, too: callbacks=pruning",
    "hydra.sweeper.sampler.seed=many": "hydra.sweeper.sampler",
}


@pytest.mark.parametrize("option", MISTAKES)
def test_a_mistake_is_told_before_the_first_trial(tmp_path: Path, option: str) -> None:
    options = [option] if option.startswith(("x=", "y=")) else ["x=1,2", option]
    assert MISTAKES[option] in clean_error(search(tmp_path, *options))
    assert not list(tmp_path.glob("sweep/*/starts"))
