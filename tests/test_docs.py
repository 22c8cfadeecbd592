"""Every command in README and docs runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import hydra
import pytest
import segmentation_models_pytorch as smp
from PIL import Image
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from idd_seg.config.command_line import in_full
from idd_seg.config.groups import config_dir
from tests.any_picture import near_infrared
from tests.helpers import TINY, run, run_here
from tests.models.foreign.networks import cirkd, mmseg, save, segformer

TOP = Path(__file__).parents[1]
PAGES = sorted([TOP / "README.md", TOP / "CONTRIBUTING.md", *(TOP / "docs").rglob("*.md")])


def fenced(language: str, start: str = "") -> list[tuple[str, str]]:
    """Return (page, text) of each fenced block of a language that starts so."""
    found = []
    for page in PAGES:
        for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            if block.startswith(start):
                found.append((page.name, block))
    return found


def commands() -> list[str]:
    lines = [line for _, block in fenced("bash") for line in block.replace("\\\n", " ").splitlines()]
    return sorted({line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")})


PROGRAM = [c for c in commands() if c.startswith("python -m idd_seg.")]
MAKE = [c for c in commands() if c.startswith("make ")]


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    rest = set(commands()) - set(PROGRAM) - set(MAKE)
    assert all(c.startswith(("git clone", "cd ", "pip install", "pip wheel")) for c in rest), rest
    assert set(QUICK) <= set(PROGRAM)
    assert set(NAMED_SLOW) <= set(PROGRAM)
    assert {"make demo", "make test"} <= set(MAKE)


@pytest.mark.parametrize("command", MAKE)
def test_make_target(command: str) -> None:
    result = subprocess.run([*shlex.split(command), "-n"], cwd=TOP, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_python_examples_are_those_of_the_page_that_test_library_runs() -> None:
    assert {page for page, _ in fenced("python")} == {"library.md"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny data sets, and the files that the commands name."""
    folder = tmp_path_factory.mktemp("docs")
    voc, camvid = folder / "voc", folder / "camvid"
    for path, mode in ((voc / "JPEGImages", "RGB"), (voc / "SegmentationClass", "L")):
        picture(path, mode, ".jpg" if mode == "RGB" else ".png")
    lists = voc / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text("".join(f"{i}\n" for i in range(4)))
        picture(camvid / split, "RGB", ".png")
        picture(camvid / f"{split}annot", "L", ".png")
        city, own = folder / "cityscapes", folder / "my_data"
        picture(city / "leftImg8bit" / split / "ulm", "RGB", "_leftImg8bit.png")
        picture(city / "gtFine" / split / "ulm", "L", "_gtFine_labelIds.png", first=7)
        picture(own / "images" / split, "RGB", ".jpg")
        picture(own / "masks" / split, "L", ".png")
    picture(own / "photos", "RGB", ".jpg")
    picture(folder / "street" / "images", "RGB", ".jpg")
    picture(folder / "street" / "masks", "L", ".png")
    (folder / "street" / "classes.yaml").write_text("classes: [road, rest]\n")
    near_infrared(folder / "my_planes")
    (folder / "my_planes" / "classes.yaml").write_text("classes: [background, plant]\n")
    (own / "train.txt").write_text("".join(f"images/train/{i}.jpg\tmasks/train/{i}.png\n" for i in range(4)))
    (own / "classes.yaml").write_text(fenced("yaml", "classes:")[0][1])
    for name in ("student", "twin"):
        loss = ["loss=[ce,kd]"] if name == "student" else ["loss=ce"]
        result = run_here("train", *TINY, *loss, f"hydra.run.dir=outputs/demo/{name}", cwd=folder)
        assert result.returncode == 0, result.stderr
    for name, copy in (("student", "street"), ("twin", "street_twin")):
        shutil.copytree(folder / "outputs" / "demo" / name, folder / "outputs" / copy)
    foreign_files(folder)
    return folder


def remove_what_is_made(words: Sequence[str], place: Path) -> None:
    """Remove what a command of docs/own_photographs.md makes, which the fixture has made for the others."""
    if "classes=propose" in words:
        (place / "street" / "classes.yaml").unlink()
    for name in ("street", "street_twin"):
        if f"hydra.run.dir=outputs/{name}" in words:
            shutil.rmtree(place / "outputs" / name)


def foreign_files(folder: Path) -> None:
    """Small networks of other projects, in the files that docs/teachers.md names; as `shrink` describes them."""
    save(cirkd("aspp", 21), folder / "deeplabv3_resnet101_voc.pth")
    save(mmseg("psp", 21), folder / "pspnet_r101_voc.pth")
    save(mmseg("aspp", 19), folder / "deeplabv3_r101_cityscapes.pth")
    save(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21), folder / "deeplabv3_voc.pth")
    save(smp.Unet("resnet18", encoder_weights=None, classes=21), folder / "unet_voc.pth")
    segformer(21).save_pretrained(folder / "segformer_voc")
    arguments = ["teacher=mmseg_pspnet_r101", *FOREIGN["mmseg"], "checkpoint=pspnet_r101_voc.pth", "data=voc"]
    result = run_here("import_checkpoint", *arguments, "out=pspnet_voc.safetensors", cwd=folder)
    assert result.returncode == 0, result.stderr


def picture(folder: Path, mode: str, suffix: str, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for i in range(4):
        Image.effect_noise((48, 48), 90).convert("RGB").save(folder / f"{i}{suffix}") if mode == "RGB" else Image.new(
            mode, (48, 48), first + i % 2
        ).save(folder / f"{i}{suffix}")


DEPTH = ("teacher.model.depth=18", "teacher.model.base=8", "teacher.model.width=16")
# By how the names of the teachers begin: what makes them small.
FOREIGN = {
    "cirkd": DEPTH,
    "mmseg": DEPTH,
    "torchvision": ("teacher.model.name=lraspp_mobilenet_v3_large",),
    "smp": ("teacher.model.encoder=resnet18",),
    "huggingface": (),
    "imported": (),
}


def foreign(words: list[str]) -> tuple[str, ...] | None:
    """Return what makes the chosen teacher small, if it is one from elsewhere."""
    kind = next((word.removeprefix("teacher=").split("_")[0] for word in words if word.startswith("teacher=")), "")
    return FOREIGN.get(kind)


def shrink(command: str) -> list[str]:
    """Keep what a command chooses, and make it small enough for a test."""
    words = [word for word in shlex.split(command)[3:] if not word.startswith("trainer.max_steps=")]
    chosen = {word.split("=")[0] for word in words}
    small = ["trainer.max_steps=2", "data.batch_size=2", "data.num_workers=0"]
    real = any(word.startswith(("data=", "experiment=")) and word != "data=shapes" for word in words)
    small += ["data.augment.crop=[40,40]", "pretrained=false", "data.image_scale=1"] if real else list(TINY[:3])
    if (smaller := foreign(words)) is not None:
        small += smaller
        chosen -= {option.split("=")[0] for option in smaller}
    elif "teacher=none" not in words:
        small += ["teacher.training.max_steps=2", "teacher.checkpoint=auto", "teacher.training.pretrained=false"]
    return words + [option for option in small if option.split("=")[0] not in chosen - {"teacher.checkpoint"}]


# Trainings that the quick tests run; the others they compose, and all are run by `make test-full`.
QUICK = (
    "python -m idd_seg.train",
    "python -m idd_seg.train --help",
    "python -m idd_seg.train data=voc student=r18 loss.idd_weight=0.5",
    "python -m idd_seg.train hydra.run.dir=outputs/mine resume=auto",
    "python -m idd_seg.train speed=fast trainer.precision=bf16-mixed",
)


def only_composed(command: str) -> bool:
    return ".train" in command and "--cfg" not in command and command not in QUICK


# Loops with masks of full size, a PSPNet-R101, a search of many jobs: minutes, and tested by parts elsewhere.
LONG_SUITES = ("generated", "checkpoint", "eval", "losses", "model", "step")
NAMED_SLOW = (
    "python -m idd_seg.train experiment=cityscapes_psp_r18_idd",
    "python -m idd_seg.benchmark data device=cpu",
)
SLOW = {
    *(command for command in PROGRAM if command.split()[2:4] in [["idd_seg.benchmark", name] for name in LONG_SUITES]),
    *NAMED_SLOW,
    *(command for command in PROGRAM if ".study " in command or "int8=true" in command or "samples=3" in command),
    *(command for command in PROGRAM if "hydra/sweeper=optuna" in command or "formats=[onnx]" in command),
    *(command for command in PROGRAM if "formats=[web]" in command),
    *(command for command in PROGRAM if only_composed(command)),
}


SMALL_STUDY = (
    'study.common=["data=shapes","teacher.checkpoint=auto","data.train_length=24","data.val_length=4",'
    '"trainer.max_steps=2","trainer.val_check_interval=2","teacher.training.max_steps=2"]',
    "study.factors=[1.0]",
)


def _two_methods(words: Sequence[str]) -> list[str]:
    """Choose the first two methods of a command's study, if it has one and does not choose by itself."""
    choice = next((word for word in words if word.startswith("study=")), None)
    if choice is None or any(word.startswith("only=") for word in words):
        return []
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        first, second, *_ = hydra.compose("study", [choice]).study.methods
    return [f'only=["{first}","{second}"]']


@pytest.mark.parametrize("command", [c for c in PROGRAM if only_composed(c)])
def test_a_training_composes(command: str) -> None:
    words = in_full([word for word in shlex.split(command)[3:] if not word.startswith("-")], "train")
    # Of a sweep its first job; launchers and ranges are for Hydra and its sweepers to read.
    first = [
        w if "[" in w or "{" in w else w.split(",")[0] for w in words if not w.startswith("hydra") and "(" not in w
    ]
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        assert hydra.compose("train", first)


@pytest.mark.parametrize("command", [pytest.param(c, marks=pytest.mark.slow if c in SLOW else ()) for c in PROGRAM])
def test_command(command: str, place: Path) -> None:
    module = command.split()[2].removeprefix("idd_seg.")
    words = shlex.split(command)[3:]
    remove_what_is_made(words, place)
    plain = module != "train" or "--help" in words or "--cfg" in words
    more = {
        "compare": ["probe_steps=2"],
        "prepare": [*(["fetch=false"] if "fetch=false" not in words else []), "data.counts=null", "workers=1"],
        "benchmark": [
            "repeats=1",
            "loss=[ce,idd]",
            *(["size=[64,64]"] if "model" in words else []),
            *(["ways=[eager]"] if "model" in words and not any(w.startswith("ways") for w in words) else []),
            *(["step.sizes=[[64,64]]", "step.terms=[ce,idd]", "teacher=medium"] if "step" in words else []),
        ],
        "study": [*SMALL_STUDY, *_two_methods(words)],
        "label": ["confidence=0"],  # of a network that is certain of nothing
        "import_checkpoint": [*(foreign(words) or ())],
    }
    if "formats=[web]" in words:
        if "IDD_SEG_ORT_WEB" not in os.environ:
            pytest.skip("IDD_SEG_ORT_WEB must name the folder of the npm package onnxruntime-web")
        more["export"] = [f"web.runtime={os.environ['IDD_SEG_ORT_WEB']}"]
    if module == "import_checkpoint":
        next(place / word.removeprefix("out=") for word in words if word.startswith("out=")).unlink()
    arguments = [*words, *more.get(module, [])] if plain else shrink(command)
    roots = {f"IDD_SEG_{name.upper()}": str(place / name) for name in ("voc", "camvid", "cityscapes")}
    env = {**roots, "HOME": str(place), "WANDB_API_KEY": "", "NETRC": os.devnull}
    # A process of its own where memory is measured, where processes are started, and once for the sake of it.
    alone = module in ("benchmark", "report") or command in SLOW or command == QUICK[0] or "--help" in words
    result = (run if alone else run_here)(module, *arguments, cwd=place, env=env)
    assert result.returncode == 0, f"{arguments}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}"
