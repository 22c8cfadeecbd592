"""Finding and reading run folders, whole and broken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

from idd_seg.errors import UserError
from idd_seg.reporting.curves import read_curves, thin
from idd_seg.reporting.exhibits import read_exhibits
from idd_seg.reporting.files import LIMITS, UnreadableError, read_mapping
from idd_seg.reporting.finding import find_runs
from idd_seg.reporting.runs import read_run
from idd_seg.runs.lock import LOCK
from tests.reporting.folders import add_exhibits, config, make_run


def test_nested_and_repeated_folders_count_once(tmp_path: Path) -> None:
    for name in ("10_b", "9_a"):
        make_run(tmp_path / "sweep" / name, config())
    (tmp_path / "sweep" / "loop").symlink_to(tmp_path)
    found, notes = find_runs([tmp_path, tmp_path / "sweep", tmp_path / "sweep" / "9_a"])
    assert [folder.name for folder in found] == ["9_a", "10_b"]
    assert notes == []


def test_aliases_are_refused(tmp_path: Path) -> None:
    """A few hundred bytes of them stand for gigabytes."""
    path = tmp_path / "config.yaml"
    path.write_text("a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]\n")
    with pytest.raises(UnreadableError, match=r"config\.yaml is broken"):
        read_mapping(path)
    path.write_text("pattern: 'images/*.jpg'\n")
    assert read_mapping(path) == {"pattern": "images/*.jpg"}


def test_a_run_of_somebody_else_is_not_called_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "run", config(), state="running")
    (folder / LOCK).touch()
    assert read_run(folder, "run").state == "lost"

    def closed(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(FileLock, "acquire", closed)
    assert read_run(folder, "run").state == "running"


def test_folders_of_other_commands_are_no_runs(tmp_path: Path) -> None:
    make_run(tmp_path / "run", config())
    make_run(tmp_path / "evaluated", config(), command=["evaluate.py", "checkpoint=x"])
    assert [folder.name for folder in find_runs([tmp_path])[0]] == ["run"]


@pytest.mark.parametrize(
    ("make", "message"), [("", "no run in"), ("file", "is a file"), ("none", "there is no folder")]
)
def test_what_holds_no_run_is_refused(tmp_path: Path, make: str, message: str) -> None:
    path = tmp_path / "x"
    if make == "file":
        path.write_text("")
    elif not make:
        path.mkdir()
    with pytest.raises(UserError, match=message):
        find_runs([path])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open any folder")
def test_a_closed_folder_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", config())
    tmp_path.chmod(0)
    try:
        with pytest.raises(UserError, match="can't be opened"):
            find_runs([tmp_path])
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "metrics.json", "metrics.csv"])
@pytest.mark.parametrize("damage", ["missing", "cut", "binary", "list", "folder"])
def test_a_broken_file_is_noted_and_the_rest_is_read(tmp_path: Path, name: str, damage: str) -> None:
    folder = make_run(tmp_path / "run", config(), points=40)
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"cut": content[: len(content) // 2 - 3], "binary": bytes(range(256)), "list": b"[1]"}[damage])
    run = read_run(folder, "run")
    # YAML cut between two lines is still YAML.
    assert (damage == "cut" and name == "config.yaml") or any(name in note for note in run.notes)
    assert run.state == ("half-written" if name in ("metrics.json", "run.json") else "finished")
    assert (run.last is None) == (name == "metrics.json")


def test_failed_and_running_runs_say_so(tmp_path: Path) -> None:
    failed = read_run(make_run(tmp_path / "a", config(), state="failed", error="CUDA out of memory"), "a")
    assert (failed.state, failed.error) == ("failed", "CUDA out of memory")
    going = make_run(tmp_path / "b", config(), state="running")
    assert read_run(going, "b").state == "lost"  # nobody holds the folder's lock: it was killed
    with FileLock(going / LOCK):
        assert read_run(going, "b").state == "running"
    assert read_run(make_run(tmp_path / "c", config(), state=None), "c").state == "finished"


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", config())
    best = '{"miou": 0.5, "iou": {"a": 1e999, "b": true, "c": 0.2}}'
    text = f'{{"last": {{"miou": NaN, "iou": 3}}, "best": {best}, "seed": "x"}}'
    (folder / "metrics.json").write_text(text)
    run = read_run(folder, "run")
    assert run.last is None
    assert run.best is not None
    assert run.best.iou == {"c": 0.2}


def test_the_command_repeats_the_run_elsewhere(tmp_path: Path) -> None:
    words = ["train.py", "loss=[ce,idd]", "name=it's $HOME", "hydra.run.dir=old"]
    run = read_run(make_run(tmp_path / "run", config(), command=words), "run")
    assert run.command == "python -m idd_seg.train 'loss=[ce,idd]' 'name=it'\"'\"'s $HOME'"


def test_a_job_of_a_sweep_is_repeated_alone(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", config(), command=["train.py", "-m", "seed=0,1"])
    assert read_run(folder, "run").command == ""
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("- seed=1\n")
    assert read_run(folder, "run").command == "python -m idd_seg.train seed=1"


def test_large_files_and_pipes_are_not_read(tmp_path: Path) -> None:
    large = tmp_path / "metrics.json"
    with large.open("wb") as file:
        file.truncate(LIMITS[".json"] + 1)
    with pytest.raises(UnreadableError, match="larger than 16 MiB"):
        read_mapping(large)
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(UnreadableError, match="not a regular file"):
        read_mapping(tmp_path / "run.json")


def test_yaml_makes_no_objects_and_aliases_do_not_explode(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", config())
    (folder / "config.yaml").write_text("!!python/object/apply:os.system ['false']")
    assert "config.yaml is broken or half-written" in read_run(folder, "run").notes
    bomb = "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}\n" for i in range(1, 40))
    (folder / "config.yaml").write_text(bomb)
    assert len(read_run(folder, "run").options) < 10_000


def test_curves_are_thinned_with_both_ends_and_broken_lines_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    rows = "".join(f"{i},{i / 3},nan\n" for i in range(1000))
    path.write_text(f"step,loss,bad\n{rows}1000,3.3,1")
    curves, notes = read_curves(path)
    assert set(curves) == {"loss"}
    assert notes == ["metrics.csv: 1 incomplete line"]
    steps, values = thin(curves["loss"])
    assert (len(steps), steps[0], steps[-1]) == (200, 0, 999)
    assert values[1] == pytest.approx(steps[1] / 3, rel=1e-4)


def test_exhibits_name_only_pictures_beside_them(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", config())
    content = add_exhibits(folder)
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    (folder / "exhibits" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "exhibits" / "page.png").write_text("<svg onload=alert(1)>")
    content["samples"][0] |= {"image": "../../secret.png", "truth": "link.png", "student": "page.png"}
    content["confusion"] = [[1]]
    (folder / "exhibits" / "exhibits.json").write_text(json.dumps(content))
    notes: list[str] = []
    found = read_exhibits(folder, notes)
    assert found is not None
    assert set(found["samples"][0]) == {"name", "shown", "teacher"}
    assert set(found["samples"][1]) == {"name", "shown", "image", "truth", "student", "teacher"}
    assert [sample["shown"] for sample in found["samples"]] == [[0, 1, 2], [0, 1]]
    assert found["confusion"] is None
    assert [
        n for n in ("../../secret.png", "link.png", "page.png", "confusion") if any(n in note for note in notes)
    ] == [
        "../../secret.png",
        "link.png",
        "page.png",
        "confusion",
    ]
