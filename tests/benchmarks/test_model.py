"""`benchmark model`: numbers that are known by hand, what is measured and what is said of the rest."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from idd_seg.benchmarks import model, networks, ways
from idd_seg.benchmarks.frame_rate import fastest, lines_of
from idd_seg.benchmarks.networks import Found, cases_of, flops, picture_size
from idd_seg.benchmarks.timing import Timing
from idd_seg.config.instantiate import make_student
from idd_seg.errors import CheckpointError, ConfigError, UserError
from idd_seg.models.mit_block import Attention
from idd_seg.types import Outputs
from tests.config.test_composition import compose

CPU = torch.device("cpu")
TINY = ("data=shapes", "student=small", "teacher=none", "repeats=2", "ways=[]", "size=[32,64]")


def config(folder: Path, *options: str) -> DictConfig:
    cfg = compose("benchmark", "suite=model", *TINY, f"output_dir={folder}", *options)
    cfg.run_dir = str(folder)
    return cfg


class OneLayer(nn.Module):
    """A convolution of a known number of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, image: Tensor) -> Outputs:
        return Outputs(self.norm(self.conv(image)), {})


def test_the_operations_of_a_convolution_are_counted_by_hand() -> None:
    """(5 x 5 x 3) multiply-adds of two operations for each of 8 x 10 x 6 values of each of 2 pictures."""
    network = OneLayer()
    assert flops(network, (2, 3, 20, 12)) == 2 * (5 * 5 * 3) * (8 * 10 * 6) * 2
    assert next(network.parameters()).device == CPU


def test_the_products_of_attention_are_counted() -> None:
    width, here, reduced = 16, 8 * 8, 4 * 4

    class Lone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention(width, heads=2, reduction=2)

        def forward(self, image: Tensor) -> Outputs:
            return Outputs(self.attention(image.new_zeros(1, here, width), image.new_zeros(1, width, 8, 8)), {})

    linear = 2 * width * width * (here + 2 * reduced)
    convolution = 2 * (2 * 2 * width) * width * reduced
    products = 2 * (2 * here * reduced * width)
    assert flops(Lone(), (1, 3, 8, 8)) == linear + convolution + products


def test_parameters_and_operations_are_those_of_the_network(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    assert model.run(cfg, CPU) == []
    (found,) = json.loads((tmp_path / "model.json").read_text())["networks"]
    network = make_student(cfg)
    network.auxiliary = None  # no part of a prediction
    assert found["parameters"] == sum(p.numel() for p in network.parameters())
    assert found["flops"] == flops(network, (1, 3, 32, 64))
    assert found["strides"] == [4, 8, 8, 8]
    assert found["miou"] is None
    assert found["ways"] == {}


def test_operations_grow_with_the_batch_and_the_picture() -> None:
    network = make_student(compose("train", "student=r18_half", "pretrained=false", "head@student.head=fcn")).eval()
    once = flops(network, (1, 3, 64, 64))
    assert flops(network, (3, 3, 64, 64)) == 3 * once
    assert flops(network, (1, 3, 128, 64)) == 2 * once


def test_times_memory_rows_and_picture_of_a_run_of_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        model, "peak_memory", lambda prepare, node, way, *rest: {"eager": 3_000_000}.get(way, 1_000_000)
    )
    rows = model.run(config(tmp_path, "ways=[eager,onnx]", "teacher=medium", "batch=2"), CPU)
    content = json.loads((tmp_path / "model.json").read_text())
    assert [each["name"] for each in content["networks"]] == ["student", "medium"]
    for each in content["networks"]:
        for found in each["ways"].values():
            assert 0 < found["ms"]["low"] <= found["ms"]["median"] <= found["ms"]["high"]
            assert found["images_per_second"] == pytest.approx(2000 / found["ms"]["median"])
        assert [found["peak_memory"] for found in each["ways"].values()] == [3_000_000, 1_000_000]
    assert [row.what for row in rows] == [
        *("student: onnx", "medium: onnx"),
        *("student against medium: eager", "student against medium: onnx"),
    ]
    small, medium = (each["ways"]["eager"]["ms"]["median"] for each in content["networks"])
    assert rows[2].ratio == pytest.approx(medium / small)
    said = capsys.readouterr().out
    assert "GFLOPs" in said
    assert "mIoU" in said
    with Image.open(tmp_path / "model.png") as picture:
        assert picture.width > 900


@pytest.mark.parametrize("way", ["eager", "onnx"])
def test_a_way_computes_the_logits(way: str) -> None:
    network = make_student(compose("train", "student=small", "pretrained=false")).eval()
    image = ways.picture((40, 56), 2, CPU)
    found: Any = ways.WAYS[way](network, image, True)()
    with torch.no_grad():
        expected = network(image).logits
    logits = found if isinstance(found, Tensor) else torch.from_numpy(found[0])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


def test_without_a_compiler_the_rest_is_measured_and_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(network: nn.Module, **options: Any) -> Any:
        def call(image: Tensor) -> Tensor:
            raise RuntimeError("InvalidCxxCompiler: none found\nat length")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(model, "peak_memory", lambda *arguments: 1)
    model.run(config(tmp_path, "ways=[compiled,eager]"), CPU)
    content = json.loads((tmp_path / "model.json").read_text())
    assert list(content["networks"][0]["ways"]) == ["eager"]
    line = "student, compiled: torch.compile does not work here: InvalidCxxCompiler: none found"
    assert content["left_out"] == [line]
    assert f"not measured: {line}\n" in capsys.readouterr().out


def test_without_onnx_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = ways.importlib.util.find_spec
    monkeypatch.setattr(ways.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(ways.NotHereError, match=r"^onnxscript not installed: pip install 'idd-seg\[onnx\]'"):
        ways.onnx(OneLayer(), torch.zeros(1, 3, 8, 8), False)


def test_a_process_that_dies_costs_its_own_number_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*arguments: Any) -> int:
        raise EOFError

    monkeypatch.setattr(model, "peak_memory", dies)
    model.run(config(tmp_path, "ways=[eager]"), CPU)
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["networks"][0]["ways"]["eager"]["peak_memory"] is None
    assert content["left_out"][0].startswith("student, eager: the memory, because the process")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["eager", "onnx", "compiled"])
def test_the_memory_is_that_of_one_call(way: str) -> None:
    """At least two maps of the stem at the same time; much less than what loading the program takes."""
    node: Any = OmegaConf.to_container(compose("train", "student=small", "pretrained=false").student, resolve=True)
    stem = 8 * (512 // 2) ** 2 * 4
    assert stem < model.peak_memory(ways.alone, node, way, (512, 512), 1) < 40 * stem


# Sizes


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (["data=shapes", "size=null"], (128, 128)),
        (["data=shapes", "data.size=[48,80]", "size=null"], (48, 80)),
        (["data=cityscapes", "size=null"], (1024, 2048)),
        (["data=cityscapes", "data.image_scale=0.5", "size=null"], (512, 1024)),
        (["data=cityscapes", "data.image_scale=0.5", "size=[40,50]"], (40, 50)),
    ],
)
def test_the_size_is_that_of_the_data_set_as_networks_see_it(
    options: list[str], size: tuple[int, int], tmp_path: Path
) -> None:
    assert picture_size(config(tmp_path, *options)) == size


def test_every_data_set_that_is_published_has_a_size(tmp_path: Path) -> None:
    known = set(config(tmp_path).picture_sizes)
    assert known == {"ade20k", "camvid", "cityscapes", "coco_stuff", "voc"}


def test_a_data_set_of_unknown_size_asks_for_one(tmp_path: Path) -> None:
    cfg = config(tmp_path, "size=null")
    cfg.data = {"name": "folder", "num_classes": 3}
    with pytest.raises(ConfigError, match=r"data=folder is not known; give one: size=\[height,width\]"):
        picture_size(cfg)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("size=[32]", r"size must be \[height,width\]"),
        ("size=32", r"size must be \[height,width\]"),
        ("size=[0,32]", "1 to 20000"),
        ("size=[32,30000]", "1 to 20000"),
        ("batch=0", "batch must be a whole number of at least 1, got '0'"),
        ("repeats=0.5", "repeats must be a whole number of at least 1"),
        ("ways=[egaer]", "there is no way 'egaer'; did you mean 'eager'"),
        ("ways=eager", r"ways must be a list, as in ways=\[eager,onnx\]"),
        ("students=r18", r"students must be a list of choices, as in students=\[r18,mbv3_small\]"),
        ("students=[]", "students must be a list of choices"),
        ("students=[r18,mbv3_smal]", "students: there is no 'mbv3_smal'; did you mean 'mbv3_small'"),
        ("fps=0", "fps must be a number of pictures a second above 0, or null, got '0'"),
        ("fps=fast", "fps must be a number"),
        ("runs=outputs", "runs must name folders"),
        ("student.backbone=resnet19", "did you mean 'resnet18'"),
        ("teacher=imported", "teacher=imported has no network without its file"),
    ],
)
def test_a_refused_option_gets_one_message(option: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        model.run(config(tmp_path, option), CPU)


# Runs


def make_run(folder: Path, data: str = "shapes", metrics: Any = None) -> Path:
    cfg = compose("train", "student=small", "pretrained=false")
    weights = {f"student.{name}": value for name, value in make_student(cfg).state_dict().items()}
    student = OmegaConf.to_container(cfg.student, resolve=True)
    card = {"format": 1, "class_names": None, "config": {"student": student, "data": {"name": data}}}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": weights, "idd_seg": card}, folder / "checkpoints" / "best.ckpt")
    content = {"best": {"miou": 0.625}, "last": {"miou": 0.5}} if metrics is None else metrics
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


def test_runs_bring_their_accuracy_and_may_take_a_place(tmp_path: Path) -> None:
    make_run(tmp_path / "a"), make_run(tmp_path / "b", metrics={"best": {"miou": 0.25}})
    cfg = config(tmp_path, f"runs={{student: '{tmp_path}/a', other: '{tmp_path}/b'}}", "teacher=medium")
    assert [(case.name, case.miou) for case in cases_of(cfg)] == [("student", 0.625), ("medium", None), ("other", 0.25)]


def test_a_comparison_without_runs_invents_no_accuracy(tmp_path: Path) -> None:
    assert [case.miou for case in cases_of(config(tmp_path, "teacher=medium"))] == [None, None]


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ({"data": "camvid"}, ConfigError, "runs.a: .* trained on data=camvid, not on shapes; add data=camvid"),
        ({"metrics": {"best": {}}}, UserError, "runs.a: .*has no best.miou"),
        ({"metrics": []}, UserError, "runs.a"),
        (None, CheckpointError, r"there is no file '.*best\.ckpt'"),
    ],
)
def test_a_run_that_cannot_be_used_is_named(fault: Any, error: type, said: str, tmp_path: Path) -> None:
    if fault is not None:
        make_run(tmp_path / "a", **fault)
    with pytest.raises(error, match=said):
        cases_of(config(tmp_path, f"runs={{a: '{tmp_path}/a'}}"))


def test_a_network_of_other_classes_than_the_default_is_built(tmp_path: Path) -> None:
    """A foreign teacher has as many classes as its file says; without one, as many as the data."""
    (_, teacher) = cases_of(config(tmp_path, "teacher=medium", "teacher.model.num_classes=null"))
    assert teacher.node["num_classes"] == 11


# The picture


def found(name: str, miou: float | None) -> Found:
    t = Timing(0.02, 0.018, 0.025)
    return Found(name, 1000, 10**9, None, miou, {"eager": t, "onnx": t}, {})


@pytest.mark.parametrize(("mious", "panels"), [([None, None], 3), ([0.5, None], 4), ([0.5, 0.6], 4)])
def test_the_picture_has_a_panel_of_accuracy_only_where_there_is_one(mious: list[float | None], panels: int) -> None:
    fig = model.draw("a $title$", [found(f"network {i}", miou) for i, miou in enumerate(mious)])
    assert len(fig.axes) == panels


def test_strides_are_those_of_the_backbone() -> None:
    assert networks.strides(OneLayer()) is None
    network = make_student(compose("train", "student=mbv3_small", "pretrained=false"))
    assert networks.strides(network) == [4, 8, 16, 16]


def test_several_students_are_measured_by_their_names(tmp_path: Path) -> None:
    cases = cases_of(config(tmp_path, "students=[small,r18_quarter,small]", "teacher=medium"))
    assert [case.name for case in cases] == ["small", "r18_quarter", "medium"]
    assert {case.node["num_classes"] for case in cases} == {11}


# Frame rates


def with_times(name: str, miou: float | None, parameters: int, **seconds: tuple[float, float]) -> Found:
    times = {way: Timing(median, median, high) for way, (median, high) in seconds.items()}
    return Found(name, parameters, 10**9, None, miou, times, {})


def test_a_rate_is_kept_if_most_calls_are_fast_enough() -> None:
    measured = [
        with_times("jumpy", 0.9, 9, eager=(0.01, 0.05)),
        with_times("small", None, 1, eager=(0.02, 0.02), onnx=(0.01, 0.01)),
        with_times("good", 0.7, 3, eager=(0.03, 0.031)),
        with_times("fair", 0.6, 5, eager=(0.01, 0.012)),
        with_times("large", None, 7, eager=(0.03, 0.03)),
    ]
    said = lines_of(fastest(measured, 1), 30.0)
    assert said[0] == "30 pictures a second are kept by, the best first:"
    assert [line.split(" (")[0].strip() for line in said[1:]] == ["good", "fair", "large", "small"]
    assert said[1] == "  good (eager): 32.3 a second, mIoU 70.00 %, 0.00 M parameters"
    assert "small (onnx): 100 a second, 0.00 M" in said[4]


def test_where_none_keeps_it_the_fastest_is_named() -> None:
    measured = [with_times("a", None, 1, eager=(0.2, 0.2)), with_times("b", None, 2, eager=(0.1, 0.1))]
    assert lines_of(fastest(measured, 2), 30.0) == [
        "30 pictures a second: kept by none; the fastest is b (eager): 20 a second, 0.00 M parameters"
    ]
    assert lines_of([], 30.0) == ["30 pictures a second: nothing was measured"]


def test_the_picture_shows_the_rate() -> None:
    fig = model.draw("t", [found("network", 0.5)], budget=1 / 30)
    assert [len(axis.lines) for axis in fig.axes[:2]] == [0, 0]
    assert all(1e3 / 30 in axis.lines[-1].get_xdata() for axis in fig.axes[2:])


@pytest.mark.slow  # see tests/exporting/test_openvino.py
@pytest.mark.parametrize(("way", "packages"), [("openvino", ["openvino"]), ("openvino_int8", ["openvino", "nncf"])])
def test_openvino_computes_the_same(way: str, packages: list[str]) -> None:
    if any(importlib.util.find_spec(package) is None for package in packages):
        pytest.skip("pip install 'idd-seg[openvino]'")
    network, image = OneLayer().eval(), ways.picture((16, 24), 1, CPU)
    expected, found = ways.eager(network, image, False)(), ways.WAYS[way](network, image, False)()
    assert isinstance(expected, Tensor)
    assert isinstance(found, Tensor)
    difference = (found - expected).abs().max() / expected.abs().max()
    assert difference < (1e-5 if way == "openvino" else 0.03)
    assert (difference > 1e-4) == (way == "openvino_int8")


@pytest.mark.slow
def test_openvino_is_of_cpus() -> None:
    class OnGpu:
        is_cuda = True

    if importlib.util.find_spec("openvino") is None:
        pytest.skip("pip install 'idd-seg[openvino]'")
    with pytest.raises(ways.NotHereError, match="is measured on CPUs"):
        ways.openvino(OneLayer(), OnGpu(), False)  # type: ignore[arg-type]
