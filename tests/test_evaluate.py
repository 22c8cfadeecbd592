"""Scores, and files for the owners' servers: the numbers of the Cityscapes scripts, and the evaluate command."""

from __future__ import annotations

import csv
import json
import math
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn

from idd_seg import evaluate as command
from idd_seg.checkpoints.reader import FORMAT, KEY, Saved, read_checkpoint
from idd_seg.config import restore
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.submission import ServerFormat
from idd_seg.errors import ConfigError, DataError
from idd_seg.evaluation.inference import Inference
from idd_seg.evaluation.per_image import PerImage
from idd_seg.evaluation.scoring import evaluate, submit
from idd_seg.metrics.confusion import ConfusionMatrix, scores
from idd_seg.ops.upsample import whole_view
from idd_seg.types import Outputs
from tests.commands import call
from tests.data import layouts
from tests.data.layouts import make_data, raw, voc_palette

CPU = torch.device("cpu")


class Network(nn.Module):
    """Coarse logits, a third of the picture a side, from its colours; some classes are never predicted."""

    def __init__(self, num_classes: int, never: tuple[int, ...] = ()) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.never = nn.Conv2d(3, num_classes, 3, stride=3), list(never)

    def forward(self, image: Tensor) -> Outputs:
        logits = 3 * self.conv(image)
        logits[:, self.never] = -100
        return Outputs(logits, {})


def slow_ids(network: nn.Module, data: SegmentationDataModule, split: str) -> dict[str, Any]:
    """Return the class ids of each photograph by `interpolate` and `argmax`, by its path."""
    found = {}
    for batch in data.loader(split):
        image = data.normalise(batch.image)
        with torch.no_grad():
            large = F.interpolate(network(image).logits, size=batch.label.shape[-2:], mode="bilinear")
        found |= {name: ids.numpy() for name, ids in zip(batch.names, large.argmax(1), strict=True)}
    return found


def counted(pictures: list[tuple[Any, Tensor]], num_classes: int) -> Tensor:
    """Return the counts of (class ids, label) one pixel after the other: rows truth, columns prediction."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    for ids, label in pictures:
        judged = label.numpy() != 255
        np.add.at(counts, (label.numpy()[judged], ids[judged]), 1)
    return torch.from_numpy(counts)


# The Cityscapes owner's scripts


def owner_scores(root: Path, predictions: Path) -> tuple[dict[str, float], float]:
    """Return the IoU of each class and their mean, as the owner's scripts find them."""
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    options = script.CArgs()
    options.__dict__.update(script.args.__dict__)
    options.evalInstLevelScore, options.JSONOutput, options.quiet = False, False, True  # instances have their own score
    options.predictionPath, options.predictionWalk = str(predictions), None
    truth = sorted(str(path) for path in (root / "gtFine" / "val").glob("*/*_gtFine_labelIds.png"))
    found = script.evaluateImgLists([script.getPrediction(options, path) for path in truth], truth, options)
    return found["classScores"], found["averageScoreClasses"]


def only_few_classes(root: Path) -> None:
    """Leave four classes and void in the truth, one class of them nowhere predicted, and others predicted alone."""
    rng = np.random.default_rng(7)
    for path in (root / "gtFine" / "val").glob("*/*_labelIds.png"):
        layouts.save(layouts.values(rng, raw(path).shape, [7, 11, 26, 33, 0, 3, 9, 29]), path)


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
@pytest.mark.parametrize("case", ["all classes", "few classes", "perfect"])
def test_scores_are_those_of_the_owner_s_scripts(case: str, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("cityscapesscripts")
    root = layouts.cityscapes(tmp_path, seed=1)
    if case == "few classes":
        only_few_classes(root)
        for path in (root / "gtFine" / "val").glob("*/*_labelIds.png"):
            ids = raw(path)
            train_ids = np.full(256, 255, np.uint8)
            train_ids[list(layouts.CITYSCAPES_IDS)] = range(19)
            layouts.save(train_ids[ids], path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    data = make_data("cityscapes", root, f"data.labels={kind}")
    network: nn.Module = Network(19, never=(2, 9))
    if case == "perfect":
        network = Knowing(data, "val")
    folder = tmp_path / "submission"
    archive = submit(network, data, "val", CPU, folder)
    theirs, their_mean = owner_scores(root, folder)
    ours = evaluate(network, data, "val", CPU)
    assert archive.suffix == ".zip"
    for name, iou in zip(data.class_names, ours.iou, strict=True):
        assert iou == pytest.approx(theirs[name], abs=1e-9, nan_ok=True), name
    assert ours.miou == pytest.approx(their_mean, abs=1e-9)
    assert sum(not math.isnan(iou) for iou in theirs.values()) == sum(not math.isnan(iou) for iou in ours.iou)
    if case == "perfect":
        assert ours.miou == ours.accuracy == 1
    else:
        assert 0 < ours.miou < 0.5
        assert ours.iou[2] == 0  # in the truth, and never predicted


class Knowing(nn.Module):
    """Gives the truth of the photographs in their order; where nothing is judged, some class."""

    def __init__(self, data: SegmentationDataModule, split: str) -> None:
        super().__init__()
        self.labels = [data.dataset(split)[0, i].label.long() for i in range(len(data.dataset(split)))]
        self.calls = 0

    def forward(self, image: Tensor) -> Outputs:
        label = self.labels[self.calls % len(self.labels)]
        self.calls += 1
        return Outputs(F.one_hot(torch.where(label == 255, 4, label), 19).movedim(-1, 0)[None].float(), {})


# Evaluation


@pytest.mark.parametrize("name", ["camvid", "voc", "ade20k", "coco_stuff"])
def test_scores_are_those_of_a_direct_count(name: str, tmp_path: Path) -> None:
    data = make_data(name, layouts.LAYOUTS[name](tmp_path))
    network, k = Network(data.num_classes), data.num_classes
    hits, truth, claimed = np.zeros(k), np.zeros(k), np.zeros(k)
    for i, (_, ids) in enumerate(sorted(slow_ids(network, data, "val").items())):
        label = data.dataset("val")[0, i].label.numpy()
        judged = label != 255
        for c in range(k):
            hits[c] += ((label == c) & (ids == c)).sum()
            truth[c] += (label == c).sum()
            claimed[c] += ((ids == c) & judged).sum()
    with np.errstate(invalid="ignore"):
        expected = hits / (truth + claimed - hits)
    found = evaluate(network, data, "val", CPU)
    assert found.iou == pytest.approx(expected.tolist(), abs=1e-9, nan_ok=True)
    assert found.miou == pytest.approx(np.nanmean(expected), abs=1e-9)
    assert found.accuracy == pytest.approx(hits.sum() / truth.sum(), abs=1e-9)


def test_several_photographs_at_once_change_no_score(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    network = Network(11)
    one, two = (evaluate(network, make_data("camvid", root, f"data.eval_batch_size={n}"), "val", CPU) for n in (1, 2))
    assert one == two


def test_a_smaller_picture_is_judged_at_full_size(tmp_path: Path) -> None:
    data = make_data("camvid", layouts.camvid(tmp_path), "data.image_scale=0.5")
    shapes = []
    network = Network(11)
    network.register_forward_hook(lambda module, args, out: shapes.append(tuple(args[0].shape[-2:])))
    evaluate(network, data, "val", CPU)
    assert set(shapes) == {(6, 8)}
    pictures = [(ids, data.dataset("val")[0, i].label) for i, ids in enumerate(slow_ids(network, data, "val").values())]
    assert evaluate(network, data, "val", CPU) == scores(counted(pictures, 11))


def test_a_network_in_training_is_judged_in_evaluation(tmp_path: Path) -> None:
    network = Network(11).train()
    modes = []
    network.register_forward_hook(lambda module, args, out: modes.append(module.training))
    evaluate(network, make_data("camvid", layouts.camvid(tmp_path)), "val", CPU)
    assert modes == [False] * 3


def test_an_evaluation_gives_no_warning(tmp_path: Path) -> None:
    data = make_data("camvid", layouts.camvid(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(Network(11), data, "val", CPU)


def test_counts_after_a_score_are_not_those_before() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4, 3, 5, 5, generator=generator), torch.randint(0, 3, (4, 5, 5), generator=generator)
    matrix = ConfusionMatrix(3)
    for i in range(4):
        matrix.update([whole_view(logits[i : i + 1], (5, 5))], labels[i : i + 1])
        whole = ConfusionMatrix(3)
        whole.update(logits[: i + 1], labels[: i + 1])
        assert torch.equal(matrix.compute(), whole.compute())


@pytest.mark.parametrize(("name", "split"), [("voc", "test"), ("cityscapes", "test"), ("cityscapes", "predict")])
def test_a_split_without_labels_says_what_to_do(name: str, split: str, tmp_path: Path) -> None:
    data = make_data(name, layouts.LAYOUTS[name](tmp_path))
    with pytest.raises(DataError, match=rf"data={name} has no labels for the split '{split}'; submit=true"):
        evaluate(Network(data.num_classes), data, split, CPU)


def test_a_split_without_labels_and_without_server(tmp_path: Path) -> None:
    data = make_data("camvid", layouts.camvid(tmp_path))
    with pytest.raises(DataError, match=r"data=camvid has no labels for the split 'predict'$"):
        evaluate(Network(11), data, "predict", CPU)


# Files for the servers


def opened(archive: Path, folder: Path) -> dict[str, Path]:
    """Unpack an archive; return its files by their names in it."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
    else:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_cityscapes_server_takes(split: str, tmp_path: Path) -> None:
    data = make_data("cityscapes", layouts.cityscapes(tmp_path))
    network = Network(19)
    archive = submit(network, data, split, CPU, tmp_path / "submission")
    assert archive == tmp_path / "submission.zip"
    files = opened(archive, tmp_path / "unpacked")
    # A file for each photograph, at the top of the archive or below, and nothing else.
    assert sorted(Path(name).name for name in files) == [f"{name}_pred_labelIds.png" for name in layouts.CITIES[split]]
    table = np.array(layouts.CITYSCAPES_IDS)
    for name, ids in slow_ids(network, data, split).items():
        path = files[Path(name).name.replace("_leftImg8bit", "_pred_labelIds")]
        with Image.open(path) as picture:
            assert (picture.mode, picture.format, picture.size) == ("L", "PNG", (30, 15))
        assert np.array_equal(raw(path), table[ids])


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_voc_s_server_takes(split: str, tmp_path: Path) -> None:
    data = make_data("voc", layouts.voc(tmp_path))
    network = Network(21)
    archive = submit(network, data, split, CPU, tmp_path / "submission")
    assert archive.name == "submission.tar.gz"
    files = opened(archive, tmp_path / "unpacked")
    place = "results/VOC2012/Segmentation/comp6_test_cls"
    assert sorted(files) == [f"{place}/{name}.png" for name in layouts.VOC_LISTS[split]]
    for name, ids in slow_ids(network, data, split).items():
        path = files[f"{place}/{Path(name).stem}.png"]
        with Image.open(path) as picture:
            assert (picture.mode, picture.format) == ("P", "PNG")
            assert picture.getpalette()[: 21 * 3] == voc_palette()[: 21 * 3]  # type: ignore[index]
        assert np.array_equal(raw(path), ids)


def test_submissions_show_the_network_a_picture_as_evaluation_does(tmp_path: Path) -> None:
    data = make_data("cityscapes", layouts.cityscapes(tmp_path))
    network, inference = Network(19), Inference("slide", (9, 12), (6, 8), [0.75, 1.0], flip=True)
    files = opened(submit(network, data, "val", CPU, tmp_path / "submission", inference), tmp_path / "unpacked")
    back = np.full(256, 255)
    back[list(layouts.CITYSCAPES_IDS)] = range(19)
    pictures = [(back[raw(files[name])], data.dataset("val")[0, i].label) for i, name in enumerate(sorted(files))]
    found = scores(counted(pictures, 19))
    assert found == evaluate(network, data, "val", CPU, inference=inference)
    assert found != evaluate(network, data, "val", CPU)


def test_a_second_submission_holds_its_own_files_alone(tmp_path: Path) -> None:
    data = make_data("cityscapes", layouts.cityscapes(tmp_path))
    for split in ("val", "test"):
        archive = submit(Network(19), data, split, CPU, tmp_path / "submission")
    assert len(opened(archive, tmp_path / "unpacked")) == len(layouts.CITIES["test"])


@pytest.mark.parametrize("name", ["camvid", "ade20k", "coco_stuff"])
def test_without_a_server_nothing_is_written(name: str, tmp_path: Path) -> None:
    data = make_data(name, layouts.LAYOUTS[name](tmp_path))
    with pytest.raises(ConfigError, match=f"data={name} has no server that takes predictions"):
        submit(Network(data.num_classes), data, "test", CPU, tmp_path / "submission")
    assert not (tmp_path / "submission").exists()


@pytest.mark.parametrize(
    ("photograph", "expected"),
    [
        ("/x/a_leftImg8bit.png", "a_pred.png"),
        ("a.b_leftImg8bit.jpg", "a.b_pred.png"),
        ("ü 1_leftImg8bit_leftImg8bit.png", "ü 1_leftImg8bit_pred.png"),
        ("other.png", "other_pred.png"),
    ],
)
def test_names_for_a_server(photograph: str, expected: str, tmp_path: Path) -> None:
    server = ServerFormat("in/side", drop="_leftImg8bit", suffix="_pred.png", values=(7, 9))
    path = server.write(tmp_path, photograph, np.array([[0, 1, 1]], np.uint8), [])
    assert path == tmp_path / "in" / "side" / expected
    assert raw(path).tolist() == [[7, 9, 9]]


# The command


TINY = ["data=camvid", "student=small", "loss=ce", "teacher=none", "pretrained=false", "data.counts=null"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Return root and checkpoint of a data set: a small student with fresh weights, saved as a run saves its own."""
    made: dict[str, tuple[Path, Path]] = {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            root = layouts.LAYOUTS[name](folder)
            cfg = layouts.compose(*TINY[1:], f"data={name}", f'data.root="{root}"', "data.augment.crop=[9,12]")
            data = layouts.instantiate.make_data(cfg)
            torch.manual_seed(1)
            student = layouts.instantiate.make_student(cfg)
            groups = {g: OmegaConf.to_container(cfg[g], resolve=True) for g in ("student", "data", "loss")}
            card = {"format": FORMAT, "class_names": data.class_names, "config": groups, "name": name, "seed": 0}
            state = {f"student.{key}": value for key, value in student.state_dict().items()}
            torch.save({KEY: card, "state_dict": state}, folder / "last.ckpt")
            made[name] = root, folder / "last.ckpt"
        return made[name]

    return make


Checkpoints = Callable[[str], tuple[Path, Path]]
EVALUATIONS = {
    "whole": ([], Inference()),
    "slide": (["eval.mode=slide"], Inference("slide", (9, 12))),
    "own window": (["eval.mode=slide", "eval.crop=[8,10]", "eval.stride=[5,7]"], Inference("slide", (8, 10), (5, 7))),
    "scales": (["eval.scales=[0.75,1.0,1.5]", "eval.flip=true"], Inference(scales=[0.75, 1.0, 1.5], flip=True)),
    "all": (
        ["eval.mode=slide", "eval.crop=[8,10]", "eval.scales=[1,2]", "eval.flip=true"],
        Inference("slide", (8, 10), scales=[1, 2], flip=True),
    ),
}


@pytest.mark.parametrize("case", EVALUATIONS)
def test_the_command_writes_scores_with_split_and_inference(
    case: str,
    checkpoints: Checkpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _, checkpoint = checkpoints("camvid")
    options, inference = EVALUATIONS[case]
    split = "test" if case == "all" else "val"
    base = [f"checkpoint={checkpoint}", f"split={split}", "hydra.run.dir=out"]
    assert call(command, *base, *options, folder=tmp_path, patch=monkeypatch) == 0, capfd.readouterr().err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["data"], metrics["split"]) == ("camvid", split)
    for key, value in inference.as_dict().items():
        assert metrics[key] == (list(value) if isinstance(value, tuple) else value), key
    saved = read_checkpoint(checkpoint)
    data, network = restore.data_from(saved, None), restore.student_from(saved)
    expected = evaluate(network, data, split, CPU, inference=inference)
    assert metrics["miou"] == pytest.approx(expected.miou, abs=1e-12)
    assert metrics["pixel_accuracy"] == pytest.approx(expected.accuracy, abs=1e-12)
    assert list(metrics["iou"]) == data.class_names
    for name, iou in zip(data.class_names, expected.iou, strict=True):
        assert metrics["iou"][name] == (None if math.isnan(iou) else pytest.approx(iou, abs=1e-12))
    assert metrics["sha256"] == saved.sha256
    assert (tmp_path / "out" / "config.yaml").is_file()
    assert "mIoU" in capfd.readouterr().out


def test_each_picture_has_a_row_and_the_worst_comes_first(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _, checkpoint = checkpoints("camvid")
    base = [f"checkpoint={checkpoint}", "per_image=true", "hydra.run.dir=out"]
    assert call(command, *base, folder=tmp_path, patch=monkeypatch) == 0, capfd.readouterr().err
    with (tmp_path / "out" / "per_image.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    saved = read_checkpoint(checkpoint)
    data, network = restore.data_from(saved, None), restore.student_from(saved)
    expected = {}
    for batch in data.loader("val", batch_size=1):
        matrix = ConfusionMatrix(data.num_classes, data.ignore_index)
        with torch.no_grad():
            matrix.update(network(data.normalise(batch.image)).logits, batch.label.long())
        expected[batch.names[0]] = scores(matrix.compute())
    assert {row["picture"] for row in rows} == set(expected)
    for row in rows:
        own = expected[row["picture"]]
        assert float(row["mIoU"]) == pytest.approx(100 * own.miou, abs=0.01)
        assert float(row["accuracy"]) == pytest.approx(100 * own.accuracy, abs=0.01)
        for name, iou in zip(data.class_names, own.iou, strict=True):
            assert (row[name] == "") == math.isnan(iou)
    assert [float(row["mIoU"]) for row in rows] == sorted(float(row["mIoU"]) for row in rows)
    assert f"the worst: {rows[0]['picture']}" in capfd.readouterr().out


def test_a_picture_without_labels_is_no_judgement() -> None:
    found = PerImage(["a", "b"])
    found.add("empty", torch.zeros(2, 2, dtype=torch.int64))
    found.add("good", torch.tensor([[4, 0], [0, 0]]))
    found.add("bad", torch.tensor([[2, 2], [0, 0]]))
    assert [name for name, *_ in found.worst(5)] == ["bad", "good"]


def test_the_command_takes_the_data_set_from_another_place(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, checkpoint = checkpoints("camvid")
    other = shutil.copytree(root, tmp_path / "moved ü")
    for path in (other / "valannot").iterdir():
        layouts.save(np.full((13, 17), 5, np.uint8), path)
    base = [f"checkpoint={checkpoint}", f'root="{other}"', "hydra.run.dir=out"]
    assert call(command, *base, folder=tmp_path, patch=monkeypatch) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["pixel_accuracy"] == metrics["iou"]["tree"]  # the one class of the other place


def test_the_training_split_is_judged_at_full_size_too(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    cfg = layouts.compose(*TINY, f'data.root="{root}"', "data.image_scale=0.5")
    card = {"config": {"data": OmegaConf.to_container(cfg.data, resolve=True)}}
    data = restore.data_from(Saved(tmp_path, {}, card, ""), None)
    for split in ("val", "train"):
        assert data.dataset(split)[0, 0].image.shape == (3, 6, 8)
        assert data.dataset(split)[0, 0].label.shape == (13, 17)


@pytest.mark.parametrize(("name", "archive"), [("voc", "submission.tar.gz"), ("cityscapes", "submission.zip")])
def test_the_command_writes_a_submission(
    name: str,
    archive: str,
    checkpoints: Checkpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _, checkpoint = checkpoints(name)
    base = [f"checkpoint={checkpoint}", "split=test", "submit=true", "hydra.run.dir=out"]
    assert call(command, *base, "eval.mode=slide", folder=tmp_path, patch=monkeypatch) == 0
    assert str(Path("out") / archive) in capfd.readouterr().out
    files = opened(tmp_path / "out" / archive, tmp_path / "unpacked")
    assert len(files) == 2
    assert (tmp_path / "out" / "run.json").is_file()
    assert not (tmp_path / "out" / "metrics.json").exists()


MISTAKES = [
    ("voc", ["split=test"], "data=voc has no labels for the split 'test'; submit=true"),
    ("camvid", ["split=predict"], "data=camvid has no labels for the split 'predict'"),
    ("camvid", ["split=valid"], "data=camvid has no split 'valid'; it has train, val, test, predict"),
    ("camvid", ["submit=true"], "data=camvid has no server that takes predictions"),
    ("camvid", ["root=nowhere"], "there is no folder 'nowhere'"),
    ("camvid", ["eval.mode=slides"], "eval.mode must be whole or slide, got 'slides'"),
    ("camvid", ["eval.mode=slide", "eval.stride=[99,4]"], "eval.stride=[99, 4] leaves gaps"),
    ("camvid", ["eval.scales=[0]"], "eval.scales must be a list of factors above 0"),
    ("camvid", ["eval.scale=[1]"], "no option 'eval.scale'; did you mean 'eval.scales'?"),
    ("camvid", ["device=cuda:99"], "device=cuda:99 can't be used here"),
    ("camvid", ["num_workers=-1"], "num_workers"),
]


@pytest.mark.parametrize(("name", "options", "message"), MISTAKES, ids=[" ".join(o) for _, o, _ in MISTAKES])
def test_a_mistake_gets_one_clear_message(
    name: str,
    options: list[str],
    message: str,
    checkpoints: Checkpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _, checkpoint = checkpoints(name)
    assert (
        call(command, f"checkpoint={checkpoint}", *options, "hydra.run.dir=out", folder=tmp_path, patch=monkeypatch)
        == 1
    )
    errors = capfd.readouterr().err
    assert message in errors
    assert errors.count("error: ") == 1
    assert "Traceback" not in errors
    assert not (tmp_path / "out" / "metrics.json").exists()


HASTY = ["eval.crop=[512,512]", "eval.crop=512", "eval.scales=0.75", "eval.flip=no"]


@pytest.mark.parametrize("option", HASTY)
def test_a_hasty_option_gets_one_clear_message(
    option: str,
    checkpoints: Checkpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _, checkpoint = checkpoints("camvid")
    assert (
        call(command, f"checkpoint={checkpoint}", option, "hydra.run.dir=out", folder=tmp_path, patch=monkeypatch) == 1
    )
    assert f"error: {option.split('=')[0]}" in capfd.readouterr().err
