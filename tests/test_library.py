"""`idd_seg.load`: pictures of all kinds in, class ids out; and the examples of docs/library.md."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import idd_seg
from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.config import restore
from idd_seg.errors import CheckpointError, ConfigError, DataError
from idd_seg.evaluation.inference import Inference
from idd_seg.library import Model
from tests.shipping import save_run

PAGE = Path(__file__).parents[1] / "docs" / "library.md"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    return idd_seg.load(checkpoint, device="cpu")


def photo(height: int, width: int, seed: int = 0) -> Any:
    """Patches of colours: noise alone would be one class."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.NEAREST))


def expected(checkpoint: Path, image: Any) -> Any:
    """Return the class ids by the plain way: normalise, network, interpolate, argmax."""
    saved = read_checkpoint(checkpoint)
    network, data = restore.student_from(saved), restore.data_from(saved, None)
    with torch.no_grad():
        logits = network(data.normalise(torch.from_numpy(image).permute(2, 0, 1)[None])).logits
    return F.interpolate(logits, size=image.shape[:2], mode="bilinear").argmax(1)[0].numpy()


def test_import_is_light_and_quick() -> None:
    code = "import time, sys; a = time.perf_counter(); import idd_seg; b = time.perf_counter() - a"
    code += "; print(b, 'torch' in sys.modules)"
    found = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() for _ in range(3)
    ]
    assert min(float(seconds) for seconds, _ in found) < 0.3
    assert {loaded for _, loaded in found} == {"False"}


def test_class_ids_are_those_of_the_plain_way(checkpoint: Path, model: Model) -> None:
    image = photo(50, 67)
    mask = model.predict(image)
    assert mask.shape == (50, 67)
    assert mask.dtype == np.uint8
    assert len(np.unique(mask)) > 1
    assert (mask == expected(checkpoint, image)).mean() > 0.9999


def forms(folder: Path) -> dict[str, Callable[[Any], Any]]:
    def png(image: Any) -> Path:
        Image.fromarray(image).save(folder / "a b.png")
        return folder / "a b.png"

    return {
        "path": png,
        "text": lambda image: str(png(image)),
        "PIL": Image.fromarray,
        "array": lambda image: image,
        "mirrored view": lambda image: image[:, ::-1].copy()[:, ::-1],
        "uint8 tensor": lambda image: torch.from_numpy(image).permute(2, 0, 1),
        "float tensor": lambda image: torch.from_numpy(image).permute(2, 0, 1) / 255,
    }


@pytest.mark.parametrize("form", forms(Path()))
def test_a_picture_in_any_form_gives_the_same(form: str, model: Model, tmp_path: Path) -> None:
    image = photo(40, 33)
    assert (model.predict(forms(tmp_path)[form](image)) == model.predict(image)).all()


def test_grey_is_all_three_colours(model: Model) -> None:
    grey = photo(30, 40)[..., 0]
    assert (model.predict(grey) == model.predict(np.repeat(grey[..., None], 3, 2))).all()
    assert (model.predict(Image.fromarray(grey)) == model.predict(grey)).all()


def test_a_list_may_hold_several_sizes(model: Model) -> None:
    images = [photo(40, 33, 0), photo(32, 50, 1), photo(40, 33, 2)]
    masks = model.predict(images)
    assert isinstance(masks, list)
    for image, mask in zip(images, masks, strict=True):
        assert (mask == model.predict(image)).mean() > 0.999
    assert model.predict([]) == []


def test_a_large_picture_is_shown_through_windows(checkpoint: Path) -> None:
    model = idd_seg.load(checkpoint, device="cpu")
    model.whole_limit = 40 * 50
    seen = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    model.predict(photo(40, 50))
    model.predict(photo(40, 51))
    assert model.inference_for(40, 50, None).mode == "whole"
    assert model.inference_for(40, 51, None).mode == "slide"
    assert model.inference_for(40, 50, Inference(scales=[1.1])).mode == "slide"
    model.predict(photo(30, 1100))
    assert seen == [(40, 50), (40, 51), (30, 1024), (30, 1024)]


def test_the_size_that_the_network_sees_is_the_runs(tmp_path: Path) -> None:
    model = idd_seg.load(
        save_run(tmp_path, "data=camvid", "student=small", "pretrained=false", "data.image_scale=0.5"), device="cpu"
    )
    seen = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    assert model.predict(photo(50, 70)).shape == (50, 70)
    assert seen == [(1, 3, 25, 35)]


def test_colours(model: Model) -> None:
    mask = np.array([[0, 10], [255, 3]], np.uint8)
    coloured = model.colour(mask)
    assert coloured.dtype == np.uint8
    assert coloured.tolist() == [
        [list(model.palette[0]), list(model.palette[10])],
        [[255, 255, 255], list(model.palette[3])],
    ]
    assert model.class_names[10] == "spark"


WRONG: dict[str, tuple[Any, str]] = {
    "a normalised tensor": (torch.full((3, 8, 8), -1.0), "not normalised"),
    "a batch": (torch.zeros(1, 3, 8, 8), "several pictures are a list"),
    "a tensor of integers": (torch.zeros(3, 8, 8, dtype=torch.int64), "got torch.int64"),
    "a tensor with NaN": (torch.full((3, 8, 8), float("nan")), "from 0 to 1"),
    "floats": (np.zeros((8, 8, 3)), "uint8, got (8, 8, 3) float64"),
    "planes first": (np.zeros((3, 8, 8), np.uint8), "(H, W, 3)"),
    "four channels": (np.zeros((8, 8, 4), np.uint8), "(H, W, 3)"),
    "no pixels": (np.zeros((0, 8, 3), np.uint8), "(H, W, 3)"),
    "a number": (3, "got a int"),
    "nothing there": ("nowhere.png", "there is no such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_picture_is_refused(case: str, model: Model) -> None:
    image, message = WRONG[case]
    with pytest.raises(DataError, match=re.escape(message)):
        model.predict(image)


def test_a_path_that_is_wrong_gets_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        idd_seg.load(tmp_path / "nowhere.ckpt")
    with pytest.raises(CheckpointError, match="is a URL"):
        idd_seg.load("https://example.org/model")
    with pytest.raises(CheckpointError, match="no exported folder"):
        idd_seg.load(tmp_path)


def test_a_device_that_is_not_there(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="device=cuda:99"):
        idd_seg.load(checkpoint, device="cuda:99")


CARDS: dict[str, tuple[str, Any]] = {
    "no names": ("class_names", None),
    "one name": ("class_names", ["a"]),
    "a colour short": ("palette", [[0, 0, 0]]),
    "a colour out of range": ("palette", [[0, 0, 256]] * 11),
    "a deviation of 0": ("std", [1, 0, 1]),
    "a deviation of 400 digits": ("std", [10**400, 1, 1]),
    "a mean that is no number": ("mean", [float("nan"), 0, 0]),
    "a scale of 0": ("image_scale", 0),
    "a scale beyond all": ("image_scale", 1e9),
    "an ignore index that is text": ("ignore_index", "x"),
}


@pytest.mark.parametrize("case", CARDS)
def test_a_checkpoint_that_lies_about_its_data_is_refused(case: str, checkpoint: Path, tmp_path: Path) -> None:
    key, value = CARDS[case]
    content = torch.load(checkpoint, weights_only=True)
    content["idd_seg"]["config"]["data"][key] = value
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=f"data.{key} is "):
        idd_seg.load(tmp_path / "a.ckpt")


def blocks() -> list[str]:
    return re.findall(r"^```py\w*\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def place_of_examples(folder: Path) -> Path:
    save_run(folder / "outputs" / "demo" / "student")
    Image.fromarray(photo(40, 60)).save(folder / "photo.jpg")
    return folder


def test_the_first_example_of_the_page_runs_by_itself(tmp_path: Path) -> None:
    place = place_of_examples(tmp_path)
    done = subprocess.run([sys.executable, "-c", blocks()[0]], cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", range(1, len(blocks())))
def test_the_examples_of_the_page_run(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place_of_examples(tmp_path))
    exec(compile(blocks()[number], f"example {number} of {PAGE.name}", "exec"), {"__name__": "example"})


def test_the_page_shows_both_ways() -> None:
    text = "\n".join(blocks())
    assert all(f"idd_seg.{name}(" in text for name in ("load", "train", "distil"))
    assert ".predict(" in text
    assert ".backward()" in text
    assert {"CrossEntropy", "PixelWise", "InterClassDistance", "Position"} <= set(re.findall(r"\w+", text))
