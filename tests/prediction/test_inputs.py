"""What `input=` means: a file, a folder, a pattern, a list; and what the results are called."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from idd_seg.errors import ConfigError, DataError
from idd_seg.prediction.inputs import find_jobs

OUT = Path("out")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "sub/ü b.PNG", "sub/deep/c.tiff", "notes.txt", "clip.mp4"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(text: str, **options: object) -> dict[str, str]:
    return {str(job.source): str(job.name) for job in find_jobs(text, OUT, **options)}  # type: ignore[arg-type]


def test_a_folder_keeps_its_tree(photos: Path) -> None:
    assert names("photos") == {
        "photos/a.jpg": "a",
        "photos/sub/deep/c.tiff": "sub/deep/c",
        "photos/sub/ü b.PNG": "sub/ü b",
    }
    assert names("photos", keep_ending=True)["photos/a.jpg"] == "a.jpg"


def test_a_file_is_taken_as_it_is(photos: Path) -> None:
    assert names("photos/sub/ü b.PNG") == {"photos/sub/ü b.PNG": "ü b"}
    assert find_jobs("photos/clip.mp4", OUT)[0].is_video
    assert names("photos/notes.txt") == {"photos/notes.txt": "notes"}  # refused when it is read


def test_results_of_an_earlier_call_are_no_input(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("photos/index/a.png", "photos/overlay/sub/b.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).touch()
    # The output folder may hold pictures too, and they are predicted.
    assert {str(job.name) for job in find_jobs("photos", Path("photos"))} == {"a", "sub/deep/c", "sub/ü b"}
    assert "2 files are left out: they are results in 'photos'" in capsys.readouterr().out
    assert len(find_jobs("photos", OUT)) == 5
    assert "left out" not in capsys.readouterr().out


def test_a_pattern_keeps_the_tree_below_its_fixed_part(photos: Path) -> None:
    assert names("photos/**/*.[Pt]*") == {"photos/sub/deep/c.tiff": "sub/deep/c", "photos/sub/ü b.PNG": "sub/ü b"}
    assert names("photos/*") == {"photos/a.jpg": "a", "photos/clip.mp4": "clip"}
    assert list(names(f"{photos}/photos/s*/*").values()) == ["sub/ü b"]


def test_a_name_that_looks_like_a_pattern_is_a_name(photos: Path) -> None:
    (photos / "a[1].png").touch()
    assert names("a[1].png") == {"a[1].png": "a[1]"}


def test_a_list_keeps_the_tree_below_what_its_files_share(photos: Path) -> None:
    lines = io.StringIO(f"photos/a.jpg\n\n{photos}/photos/sub/ü b.PNG\nphotos/a.jpg\n")
    assert list(names("-", lines=lines).values()) == ["a", "sub/ü b"]


def test_results_of_a_list_stay_below_the_output(photos: Path) -> None:
    lines = io.StringIO("photos/sub/../../photos/a.jpg\nphotos/sub/deep/c.tiff\n")
    assert not any(".." in Path(name).parts or Path(name).is_absolute() for name in names("-", lines=lines).values())


def test_results_are_no_input(photos: Path) -> None:
    for name in ("out/overlay/a.png", "out/index/a.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).touch()
    assert not [source for source in names(".") if "out" in Path(source).parts]
    # However the output folder is spelled.
    there = find_jobs(f"{photos}", Path("photos/../out"))
    assert not [job for job in there if "out" in job.source.parts]
    with pytest.raises(DataError, match="are results in the output folder"):
        names("out")


def test_files_that_would_write_the_same_result_are_refused(photos: Path) -> None:
    (photos / "photos" / "a.png").touch()
    with pytest.raises(
        ConfigError, match=r"'photos/a.jpg' and 'photos/a.png' would be written to the same.*keep_ending"
    ):
        names("photos")
    assert len(set(names("photos", keep_ending=True).values())) == 4


WRONG = {
    "nowhere": "there is no file or folder 'nowhere'",
    "empty": "the folder 'empty' holds no pictures",
    "photos/*.gif": r"matches nothing",
    "photos/*.txt": "matches 1 things, no picture",
    "-": "holds no file names",
    "https://example.org/a.jpg": "is a URL",
}


@pytest.mark.parametrize("text", WRONG)
def test_nothing_to_predict_is_one_clear_error(text: str, photos: Path) -> None:
    (photos / "empty").mkdir()
    with pytest.raises((DataError, ConfigError), match=WRONG[text]):
        find_jobs(text, OUT, lines=io.StringIO("\n"))


def test_a_list_with_a_url_is_refused(photos: Path) -> None:
    with pytest.raises(ConfigError, match="the list holds the URL"):
        find_jobs("-", OUT, lines=io.StringIO("a.jpg\nhttp://example.org/a.jpg\n"))
