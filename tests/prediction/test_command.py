"""`python -m idd_seg.predict`: pictures in, class ids out; mistakes and damaged files."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import idd_seg
from idd_seg import predict as command
from idd_seg.errors import UserError
from idd_seg.evaluation.inference import Inference
from idd_seg.library import Model
from idd_seg.prediction.results import Results
from tests.commands import call
from tests.shipping import save_run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"))


def photo(height: int, width: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.NEAREST))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of photographs of three sizes, in a tree."""
    for i in range(9):
        path = tmp_path / "photos" / ("sub" if i % 2 else ".") / f"{i} ü.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(30 + 4 * (i % 3), 41, i)).save(path)
    return tmp_path


def predict(checkpoint: Path, folder: Path, patch: pytest.MonkeyPatch, *options: str) -> int:
    base = [f"checkpoint={checkpoint}", "hydra.run.dir=out", "device=cpu"]
    return call(command, *base, *options, folder=folder, patch=patch)


WAYS = {
    "whole": ([], Inference()),
    "slide": (["eval.mode=slide", "eval.crop=[16,20]"], Inference("slide", (16, 20))),
    "scales": (["eval.scales=[1,1.5]", "eval.flip=true"], Inference(scales=[1, 1.5], flip=True)),
}


@pytest.mark.parametrize("way", WAYS)
def test_results_are_those_of_the_library(
    way: str, checkpoint: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options, inference = WAYS[way]
    assert predict(checkpoint, place, monkeypatch, "input=photos", *options) == 0
    assert "9 of 9 files" in (said := capfd.readouterr().out)
    assert "network busy" in said
    model = idd_seg.load(checkpoint, device="cpu")
    for source in sorted((place / "photos").rglob("*.png")):
        name, image = source.relative_to(place / "photos"), np.array(Image.open(source))
        expected = model.predict(source, inference)
        index, palette, overlay = (Image.open(place / "out" / kind / name) for kind in ("index", "palette", "overlay"))
        assert (index.mode, palette.mode, overlay.mode) == ("L", "P", "RGB")
        # A batch may round otherwise than a picture alone.
        ids = np.array(index)
        assert (ids == expected).mean() > 0.999
        assert (np.array(palette) == ids).all()
        assert (np.array(palette.convert("RGB")) == model.colour(ids)).all()
        mixed = (image.astype(int) + model.colour(ids)) / 2
        assert np.abs(np.array(overlay) - mixed).max() <= 0.5
    assert (place / "out" / "config.yaml").is_file()
    assert not [path for path in (place / "out").rglob("*") if path.name.endswith(".tmp")]


def test_only_what_is_asked_for_is_written(checkpoint: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ['input="photos/0 ü.png"', "save=[index]", "output=masks"]
    assert predict(checkpoint, place, monkeypatch, *options) == 0
    assert [str(p.relative_to(place / "masks")) for p in (place / "masks").rglob("*.png")] == ["index/0 ü.png"]


def test_a_list_on_the_standard_input(checkpoint: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("photos/0 ü.png\nphotos/sub/1 ü.png\n"))
    assert predict(checkpoint, place, monkeypatch, "input=-", "save=[index]") == 0
    found = sorted(str(p.relative_to(place / "out" / "index")) for p in (place / "out" / "index").rglob("*.png"))
    assert found == ["0 ü.png", "sub/1 ü.png"]


@pytest.mark.parametrize("size", [(1, 1), (2000, 5), (5, 2000)])
def test_pictures_of_any_shape(
    size: tuple[int, int], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(photo(*size)).save(tmp_path / "a.png")
    assert predict(checkpoint, tmp_path, monkeypatch, "input=a.png", "whole_limit=4000") == 0
    assert np.array(Image.open(tmp_path / "out" / "index" / "a.png")).shape == size


def test_damaged_files_are_left_out_and_named(
    checkpoint: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    good = (place / "photos" / "0 ü.png").read_bytes()
    (place / "photos" / "cut.png").write_bytes(good[: len(good) // 2])
    (place / "photos" / "text.jpg").write_text("no picture")
    (place / "photos" / "gone.png").symlink_to("nowhere")
    assert predict(checkpoint, place, monkeypatch, "input=photos") == 1
    said = capfd.readouterr()
    assert "3 of 12 files failed, the others are done" in said.err
    assert said.err.count("error: ") == 1
    assert "Traceback" not in said.err
    listed = (place / "out" / "failed.txt").read_text().splitlines()
    assert [Path(line.split("\t")[0]).name for line in listed] == ["cut.png", "gone.png", "text.jpg"]
    assert len(list((place / "out" / "index").rglob("*.png"))) == 9


def test_the_input_is_never_written_over(
    checkpoint: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (place / "photos").rename(place / "index")
    before = {path: path.read_bytes() for path in (place / "index").rglob("*.png")}
    assert predict(checkpoint, place, monkeypatch, "input=index", "output=.", "save=[index]") == 1
    assert "error: " in capfd.readouterr().err
    (place / "index" / "link").symlink_to(place / "index" / "sub")
    assert {path: path.read_bytes() for path in before} == before


def test_a_link_in_the_output_is_replaced_not_followed(
    checkpoint: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = place / "precious.png"
    target.write_bytes(b"precious")
    before = target.read_bytes()
    (place / "out" / "index").mkdir(parents=True)
    (place / "out" / "index" / "2 ü.png").symlink_to(target)
    assert predict(checkpoint, place, monkeypatch, "input=photos", "save=[index]") == 0
    assert target.read_bytes() == before


MISTAKES = [
    (["input=nowhere"], "there is no file or folder 'nowhere'"),
    (["input=photos/*.gif"], "matches nothing"),
    (["input=photos", "save=[indices]"], "save must be a list of index, palette, overlay"),
    (["input=photos", "save=index"], "save must be a list"),
    (["input=photos", "opacity=2"], "opacity must be a number from 0 to 1, got '2'"),
    (["input=photos", "batch_size=0"], "batch_size must be a whole number from 1 to"),
    (["input=photos", "workers=many"], "workers must be a whole number from 1 to"),
    (["input=photos", "max_pixels=1e12"], "max_pixels must be a whole number"),
    (["input=photos", "whole_limit=null"], "whole_limit must be a whole number"),
    (["input=photos", "keep_ending=1"], "keep_ending must be true or false"),
    (["input=photos", "eval.mode=slides"], "eval.mode must be whole or slide"),
    (["input=photos", "device=cuda:99"], "device=cuda:99 can't be used here"),
    (["input=photos", "bach_size=3"], "did you mean 'batch_size'?"),
    ([], "the option 'input' has no value"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=[" ".join(o) for o, _ in MISTAKES])
def test_a_mistake_gets_one_clear_message(
    options: list[str],
    message: str,
    checkpoint: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    base = [f"checkpoint={checkpoint}", "hydra.run.dir=out"]
    assert call(command, *base, *options, folder=place, patch=monkeypatch) == 1
    said = capfd.readouterr().err
    assert message in said
    assert said.count("error: ") == 1
    assert not (place / "out" / "index").exists()


def test_a_folder_that_can_not_be_written_to(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = idd_seg.load(checkpoint, device="cpu")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written to"):
        Results(tmp_path / "file" / "out", model, ["index"])
    if os.geteuid() == 0:
        monkeypatch.setattr(Path, "touch", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "read-only")))
    else:
        (tmp_path / "kept").mkdir(mode=0o500)
    with pytest.raises(UserError, match="can't be written to"):
        Results(tmp_path / "kept", model, ["index"])


def test_more_classes_than_a_byte_holds(checkpoint: Path, tmp_path: Path) -> None:
    model: Model = idd_seg.load(checkpoint, device="cpu")
    results = Results(tmp_path, model, ["index", "palette"])
    ids = np.array([[0, 300], [3, 4]], np.uint16)
    index = results._image("index", ids)
    index.save(tmp_path / "a.png")
    assert (np.array(Image.open(tmp_path / "a.png")) == ids).all()
    assert np.array(results._image("palette", ids))[0, 1].tolist() == [255, 255, 255]
