"""A run resumes with the files that it began with, wherever they lie, and with no others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from idd_seg.data.pipeline.fingerprint import Fingerprint, differences
from idd_seg.runs.data_files import NAME, read_files, write_files
from tests.data.layouts import own
from tests.helpers import clean_error, run_here

NARROW = "student.options={stem_type: deep, stem_width: 8, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}"
OPTIONS = (
    *("data=folder", "student=small", "teacher=medium", "pretrained=false", "data.batch_size=2", "data.num_workers=0"),
    *(
        "data.augment.crop=[32,32]",
        "trainer.max_steps=2",
        "trainer.val_check_interval=2",
        "trainer.log_every_n_steps=1",
    ),
    *("teacher.training.max_steps=1", "teacher.training.pretrained=false", NARROW),
)


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    files = {
        "train": Fingerprint({"a/ü 1.jpg": "10 20 ab", "tab\there.png": "1"}),
        "val": Fingerprint({"odd\udcff.png": "2 3 cd"}),
    }
    write_files(tmp_path, files)
    assert read_files(tmp_path) == files
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:-9])
    assert read_files(tmp_path) is None


def test_differences_are_counted_and_named() -> None:
    before = Fingerprint(dict.fromkeys("abcdef", "1"))
    assert differences(before, before) == ""
    assert differences(before, Fingerprint(dict.fromkeys("af", "1"))) == "4 missing (b, c, d, ...)"
    now = Fingerprint({"g": "1", **{name: "2" if name == "b" else "1" for name in "abcdef"}})
    assert differences(before, now) == "1 new (g); 1 changed (b)"
    assert differences(before, Fingerprint(dict.fromkeys("bacdef", "1"))) == "the same in another order"


def train(folder: Path, root: Path, *options: str) -> str:
    done = run_here("train", *OPTIONS, f'data.root="{root}"', "hydra.run.dir=run", "resume=auto", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stopped(folder: Path, root: Path) -> None:
    """A run that is finished but for its last words."""
    train(folder, root, "loss=ce")
    (folder / "run" / "metrics.json").unlink()


def photographs(root: Path) -> list[Path]:
    return sorted((root / "images" / "train").iterdir())


def remove(root: Path) -> None:
    photographs(root)[-1].unlink()


def add(root: Path) -> None:
    image = photographs(root)[0]
    mask = root / "masks" / "train" / f"{image.stem}.png"
    shutil.copy(image, image.with_name(f"zz{image.suffix}"))
    shutil.copy(mask, mask.with_name("zz.png"))


def mend(root: Path) -> None:
    """Exchange left and right in one mask."""
    path = sorted((root / "masks" / "train").iterdir())[0]
    mask = Image.open(path)
    mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)


@pytest.mark.parametrize(("change", "text"), [(remove, "1 missing"), (add, "1 new"), (mend, "1 changed")])
def test_a_run_does_not_go_on_with_other_files(change: Callable[[Path], None], text: str, tmp_path: Path) -> None:
    root = own(tmp_path / "photos")
    stopped(tmp_path, root)
    change(root)
    done = run_here(
        "train", *OPTIONS, f'data.root="{root}"', "loss=ce", "hydra.run.dir=run", "resume=auto", cwd=tmp_path
    )
    message = clean_error(done)
    assert text in message
    assert "split 'train'" in message


def test_a_finished_run_of_other_data_is_not_taken_for_this_one(tmp_path: Path) -> None:
    train(tmp_path, own(tmp_path / "photos"), "loss=ce")
    other = own(tmp_path / "others", seed=1)
    arguments = (*OPTIONS, f'data.root="{other}"', "loss=ce", "hydra.run.dir=run", "resume=auto")
    assert "4 changed" in clean_error(run_here("train", *arguments, cwd=tmp_path))


def test_a_run_goes_on_where_the_data_set_was_moved(tmp_path: Path) -> None:
    root = own(tmp_path / "photos")
    stopped(tmp_path, root)
    root.rename(tmp_path / "elsewhere")
    assert "run folder" in train(tmp_path, tmp_path / "elsewhere", "loss=ce")


def test_another_home_or_cache_folder_does_not_matter(tmp_path: Path) -> None:
    root = own(tmp_path / "photos")
    stopped(tmp_path, root)
    arguments = (*OPTIONS, f'data.root="{root}"', "loss=ce", "hydra.run.dir=run", "resume=auto")
    places = {"HOME": str(tmp_path / "home"), "IDD_SEG_CACHE": str(tmp_path / "other")}
    done = run_here("train", *arguments, cwd=tmp_path, env=places)
    assert done.returncode == 0, done.stderr


def test_a_kept_teacher_of_old_labels_is_not_taken(tmp_path: Path) -> None:
    root = own(tmp_path / "photos")
    first = train(tmp_path, root, "loss=[ce,kd]", "hydra.run.dir=a")
    assert "training it once" in first
    assert "teacher: taken from" in train(tmp_path, root, "loss=[ce,kd]", "hydra.run.dir=b")
    mend(root)
    assert "training it once" in train(tmp_path, root, "loss=[ce,kd]", "hydra.run.dir=c")
    again = train(tmp_path, root, "loss=[ce,kd]", "hydra.run.dir=d")
    assert "teacher: taken from" in again
    assert len([p for p in (tmp_path / "cache" / "teachers").iterdir() if p.is_dir()]) == 2
