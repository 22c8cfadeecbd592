"""The exported page in a real browser: its masks are those of `predict`; camera, keyboard, narrow screens, mistakes."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import idd_seg
from idd_seg.data.shapes import ShapesSource
from idd_seg.exporting.export import Export
from idd_seg.exporting.plan import ExportPlan
from idd_seg.exporting.web import write_web
from idd_seg.exporting.web_runtime import Runtime, runtime_of
from tests.browser import browser, opened, served
from tests.exporting.channels_file import logits_file
from tests.exporting.test_graph import card
from tests.shipping import save_run

HOSTILE = "</script><img src=x onerror=window.hacked=1>&"
NAMES, PALETTE = ["red", HOSTILE, "blue"], [(200, 0, 0), (0, 160, 0), (0, 0, 220)]
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
PATIENCE = 60_000  # milliseconds: the cores may be busy
SIZE = (240, 320)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    folder = os.environ.get("IDD_SEG_ORT_WEB")
    if folder is None:
        pytest.skip("the page is NOT tested: IDD_SEG_ORT_WEB must name the folder of the npm package onnxruntime-web")
    return runtime_of(folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def started(runtime: Runtime) -> Iterator[Any]:
    with browser(*CAMERA) as found:
        yield found


@pytest.fixture(scope="module")
def folder(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose network takes the brightest of red, green and blue; one class has a hostile name."""
    top = tmp_path_factory.mktemp("page")
    logits_file(top / "logits.onnx")
    write_web(top / "logits.onnx", top / "web", replace(card(), class_names=NAMES, palette=PALETTE), HOSTILE, runtime)
    return top / "web"


@contextmanager
def loaded(started: Any, folder: Path) -> Iterator[Any]:
    """The page of a folder, when its network is loaded."""
    with served(folder) as address, opened(started, address) as (page, _):
        page.wait_for_selector("#state:has-text('Ready')", timeout=PATIENCE)
        yield page


@pytest.fixture(scope="module")
def page(started: Any, folder: Path) -> Iterator[Any]:
    with loaded(started, folder) as found:
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photograph: as it is, as JPEG, as JPEG that lies on its side, and large."""
    folder = tmp_path_factory.mktemp("pictures")
    picture = Image.fromarray(photograph())
    picture.save(folder / "photo.png")
    picture.save(folder / "photo.jpg", quality=92)
    turned = Image.Exif()
    turned[0x0112] = 6  # upright when turned to the right
    picture.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", quality=92, exif=turned)
    picture.resize((1000, 750)).save(folder / "large.png")
    (folder / "text.png").write_text("no picture")
    return folder


def photograph() -> NDArray[np.uint8]:
    """(240, 320, 3): a photograph of CamVid where there is one, else a generated scene."""
    root = os.environ.get("IDD_SEG_CAMVID")
    found = sorted(Path(root, "val").glob("*")) if root else []
    if found:
        return np.asarray(Image.open(found[0]).convert("RGB").resize(SIZE[::-1], Image.Resampling.LANCZOS))
    return ShapesSource(0, "val", 1, SIZE)[0].image


def show(page: Any, picture: Path) -> NDArray[np.uint8]:
    """Choose a picture; return the colours that are laid over it."""
    page.set_input_files("#file", picture)
    page.wait_for_selector(f"#size:has-text('{picture.name}')", timeout=PATIENCE)
    page.wait_for_selector("#state:has-text('ms a picture')", timeout=PATIENCE)
    return colours(page)


def colours(page: Any) -> NDArray[np.uint8]:
    """Return what lies over the picture, (H, W, 3); black where nothing does."""
    address = page.evaluate("document.getElementById('overlay').toDataURL('image/png')")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
        values = np.asarray(picture.convert("RGBA"))
    return values[..., :3] * (values[..., 3:] > 0)


def laid(ids: NDArray[Any]) -> NDArray[np.uint8]:
    return np.array(PALETTE, np.uint8)[ids]


def test_names_are_text(page: Any) -> None:
    assert page.locator("#legend .name").all_inner_texts() == NAMES
    assert page.inner_text("h1") == HOSTILE
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


def test_each_pixel_gets_the_class_of_its_largest_logit(page: Any, pictures: Path) -> None:
    ids = photograph().argmax(-1)
    found = show(page, pictures / "photo.png")
    assert (found == laid(ids)).all()
    part = np.bincount(ids.reshape(-1), minlength=3) / ids.size
    rows = page.locator("#legend li").all_inner_texts()
    assert rows[0].split("\n")[0] == NAMES[part.argmax()]
    assert f"{100 * part.max():.1f} %" in rows[0]


def test_a_large_picture_is_shown_smaller_and_that_is_said(page: Any, pictures: Path) -> None:
    assert show(page, pictures / "large.png").shape == (480, 640, 3)
    assert "1000 x 750, shown to the network at 640 x 480" in page.inner_text("#size")
    page.select_option("#side", "320")
    page.wait_for_selector("#size:has-text('at 320 x 240')", timeout=PATIENCE)
    page.wait_for_selector("#overlay[width='320']", timeout=PATIENCE)
    page.select_option("#side", "640")


def test_a_picture_that_lies_on_its_side_is_turned(page: Any, pictures: Path) -> None:
    upright, turned = show(page, pictures / "photo.jpg"), show(page, pictures / "turned.jpg")
    assert upright.shape == turned.shape
    assert (upright == turned).all(-1).mean() > 0.9  # two JPEGs; beside another picture it is a third


def test_pointer_keyboard_and_legend(page: Any, pictures: Path) -> None:
    ids = photograph().argmax(-1)
    whole = show(page, pictures / "photo.png")
    box = page.locator("#frame").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 100.5 / 320, box["y"] + box["height"] * 50.5 / 240)
    assert page.inner_text("#under").strip() == NAMES[ids[50, 100]]
    page.mouse.move(0, 0)
    assert page.inner_text("#under").strip() == ""
    page.focus("#frame")
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    assert page.inner_text("#under").strip() == NAMES[ids[121, 168]]
    assert page.locator("#cross").is_visible()
    page.locator("#legend button").first.press("Enter")
    first = np.bincount(ids.reshape(-1)).argmax()
    assert (colours(page) == np.where((ids == first)[..., None], whole, 0)).all()
    page.locator("#legend button").first.press("Enter")
    assert (colours(page) == whole).all()
    page.locator("#opacity").fill("0")
    assert page.locator("#overlay").evaluate("node => getComputedStyle(node).opacity") == "0"


def test_it_is_timed(page: Any, pictures: Path) -> None:
    show(page, pictures / "photo.png")
    page.click("#time")
    page.wait_for_selector("#state:has-text('the median of 20')", timeout=PATIENCE)
    assert "320 x 240, one thread" in page.inner_text("#state")


def test_the_camera_is_shown_until_it_is_stopped(page: Any) -> None:
    page.select_option("#side", "320")
    page.click("#camera")
    page.wait_for_selector("#size:has-text('Camera: 640 x 480, shown to the network at 320 x 240')", timeout=PATIENCE)
    page.wait_for_selector("#state:has-text('a second')", timeout=PATIENCE)
    assert page.get_attribute("#camera", "aria-pressed") == "true"
    assert not page.locator("#time").is_visible()
    page.click("#camera")
    assert page.inner_text("#camera") == "Start the camera"
    assert page.evaluate("document.getElementById('video').srcObject") is None
    page.select_option("#side", "640")


def test_a_file_that_is_no_picture_is_named_and_another_can_be_chosen(page: Any, pictures: Path) -> None:
    page.set_input_files("#file", pictures / "text.png")
    page.wait_for_selector("#state.bad:has-text('text.png is no picture')")
    show(page, pictures / "photo.jpg")
    assert page.locator("#state.bad").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_needs_no_sideways_scrolling(scheme: str, page: Any, pictures: Path) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 320, "height": 640})
    show(page, pictures / "photo.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.set_viewport_size({"width": 1280, "height": 900})


def test_opened_as_a_file_it_says_what_to_do(started: Any, folder: Path) -> None:
    with opened(started, folder / "index.html") as (page, _):
        page.wait_for_selector("#state.bad:has-text('python -m http.server')")


def test_without_the_network_it_says_what_is_missing(started: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes((folder / "index.html").read_bytes())
    with served(tmp_path) as address:
        page = started.new_page()
        page.goto(address)
        page.wait_for_selector("#state.bad:has-text('Are all files of this folder there?')", timeout=PATIENCE)
        page.close()


@pytest.mark.slow
def test_masks_are_those_of_predict(started: Any, runtime: Runtime, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the page is NOT tested: pip install 'idd-seg[onnx]'")
    model = idd_seg.load(save_run(tmp_path / "run"), "cpu")
    layer = model.network.classifier[-1]
    assert isinstance(layer, torch.nn.Conv2d)
    with torch.no_grad():
        seen = model.network(model.normalise(torch.from_numpy(photograph().copy()).permute(2, 0, 1)[None])).logits
        layer.bias -= seen.mean((0, 2, 3))  # so that a picture has several classes
    (tmp_path / "export").mkdir()
    export = Export(model, ExportPlan(["web"]), tmp_path / "export", runtime)
    export.write()
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["web"]
    assert export.files["web/model.onnx"]["parity"]["same_class"] > 0.999
    with loaded(started, tmp_path / "export" / "web") as page:
        for name, least in (("photo.png", 0.9995), ("photo.jpg", 0.995), ("turned.jpg", 0.995)):
            expected = model.predict(pictures / name)
            assert len(np.unique(expected)) > 2
            same = float((show(page, pictures / name) == model.colour(expected)).all(-1).mean())
            assert same >= least, name
