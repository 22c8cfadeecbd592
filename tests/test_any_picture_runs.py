"""Four channels of 16 bits, the whole way: prepare, train with a teacher, predict, export; and a teacher of RGB."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import idd_seg
from tests.any_picture import near_infrared
from tests.helpers import clean_error, run_here

pytestmark = pytest.mark.slow

PLANES = ("data=folder", "data.root=planes", "data.channels=4", "data.bits=16")
SMALL = (
    *("student=small", "teacher=medium", "teacher.training.pretrained=false", "pretrained=false"),
    *("data.batch_size=2", "data.num_workers=0", "trainer.accelerator=cpu", "trainer.max_steps=2"),
    *("teacher.training.max_steps=1", "trainer.val_check_interval=2", "data.augment.crop=[32,32]", "loss=[ce,kd,idd]"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planes")
    near_infrared(folder / "planes")
    return folder


def test_the_whole_way(place: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    prepared = run_here("prepare", *PLANES, "classes=propose", "workers=1", "hydra.run.dir=prepared", cwd=place)
    assert prepared.returncode == 0, prepared.stderr
    assert (place / "prepared" / "train.png").is_file()
    mean, std = re.findall(r"'(data\.(?:mean|std)=\[[^]]*\])'", prepared.stdout)
    numbers = [float(value) for value in mean.partition("[")[2].strip("]").split(",")]
    assert numbers[3] > 2 * numbers[0]
    early = run_here("train", *PLANES, *SMALL, "hydra.run.dir=early", cwd=place)
    assert "data.mean and data.std are 4 finite numbers each" in clean_error(early)

    trained = run_here("train", *PLANES, *SMALL, mean, std, "data.cache=disk", "hydra.run.dir=run", cwd=place)
    assert trained.returncode == 0, trained.stderr
    assert "colour jitter is brightness and contrast" in trained.stdout
    assert (place / "run" / "exhibits" / "0_image.jpg").is_file()
    checkpoint = place / "run" / "checkpoints" / "last.ckpt"

    exported = run_here("export", f"checkpoint={checkpoint}", "output=model", "hydra.run.dir=export", cwd=place)
    assert exported.returncode == 0, exported.stderr
    predicted = run_here(
        "predict", "checkpoint=model", "input=planes/images/val", "output=masks", "hydra.run.dir=predict", cwd=place
    )
    assert predicted.returncode == 0, predicted.stderr
    session = onnxruntime.InferenceSession(str(place / "model" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [(i.type, i.shape[1]) for i in session.get_inputs()] == [("tensor(uint16)", 4)]
    metadata = session.get_modelmeta().custom_metadata_map
    assert (metadata["channels"], metadata["bits"]) == ("4", "16")
    assert "pictures of 4 channels of 16 bits as they are, `image` (N, 4, H, W) uint16" in (
        place / "model" / "README.md"
    ).read_text(encoding="utf-8")
    model = idd_seg.load(checkpoint, "cpu")
    for name in ("0", "1"):
        picture = tifffile.imread(place / "planes" / "images" / "val" / f"{name}.tif")
        mask = np.asarray(Image.open(place / "masks" / "index" / f"{name}.png"))
        logits = session.run(None, {"image": picture.transpose(2, 0, 1)[None]})[0]
        assert np.array_equal(logits.argmax(1)[0], mask)
        assert np.array_equal(model.predict(picture), mask)
        assert Image.open(place / "masks" / "overlay" / f"{name}.png").size == (32, 32)

    # The file says what the teacher is; a picture of other channels is named before anything is trained.
    again = run_here("train", *PLANES, *SMALL[2:], "student=small", mean, std, f"teacher={checkpoint}", cwd=place)
    assert again.returncode == 0, again.stderr
    tifffile.imwrite(place / "planes" / "images" / "val" / "1.tif", np.zeros((32, 32, 3), np.uint16), photometric="rgb")
    for module, more in (("train", (*SMALL, mean, std)), ("prepare", ("workers=1",))):
        refused = run_here(module, *PLANES, *more, f"hydra.run.dir={module}_refused", cwd=place)
        told = clean_error(refused) if module == "train" else refused.stdout
        assert "1.tif: the picture has 3 channels of 16 bits, and 4 channels of 16 bits are expected" in told
        assert refused.returncode == 1
