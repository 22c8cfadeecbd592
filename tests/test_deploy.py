"""The programs of docs/deploy.md: C++ is compiled, Python runs, and both give the classes of the network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import idd_seg
from tests.helpers import run_here
from tests.shipping import save_run

PAGE = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text(encoding="utf-8")
CLASSES = 5


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    return str(found)


def small_model(path: Path) -> Path:
    """Write a network of one layer with the inputs, outputs and metadata of an export."""
    weights = np.random.default_rng(0).normal(size=(CLASSES, 3, 3, 3)).astype(np.float32)
    weights -= weights.mean((1, 2, 3), keepdims=True)  # so that no class wins everywhere
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["numbers", "weights"], ["logits"], pads=[1, 1, 1, 1]),
    ]
    ends = [
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES, "h", "w"])],
    ]
    graph = helper.make_graph(nodes, "small", *ends, [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"class_names": "\n".join("abcde")})
    onnx.save(model, path)
    return path


def photo(path: Path) -> NDArray[np.uint8]:
    pixels = np.random.default_rng(1).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def expected(model: Path, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    session = onnxruntime.InferenceSession(model)
    found = session.run(["logits"], {"image": pixels.transpose(2, 0, 1)[None]})[0].argmax(1)[0]
    assert len(np.unique(found)) > 2
    return found  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program; its library is that of the archive, or else the one inside of the Python package."""
    root, compiler = os.environ.get("ONNXRUNTIME_ROOT"), shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++, clang++)")
    if root is None or not (Path(root) / "include" / "onnxruntime_cxx_api.h").is_file():
        pytest.skip(
            "ONNXRUNTIME_ROOT names no folder with include/onnxruntime_cxx_api.h, as ONNX Runtime's releases have"
        )
    folder = tmp_path_factory.mktemp("cpp")
    library = Path(root) / "lib"
    if not (library / "libonnxruntime.so").exists():
        library = folder / "lib"
        library.mkdir()
        (inside,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
        for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
            (library / name).symlink_to(inside)
    (folder / "segment.cpp").write_text(block("cpp"), encoding="utf-8")
    words = [compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "segment.cpp", "-isystem", f"{root}/include"]
    words += [f"-L{library}", "-lonnxruntime", f"-Wl,-rpath,{library}", "-o", "segment"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "segment"


def test_the_cpp_program_gives_the_classes_of_the_network(program: Path, tmp_path: Path) -> None:
    model, pixels = small_model(tmp_path / "model.onnx"), photo(tmp_path / "photo.ppm")
    words = [str(program), str(model), "photo.ppm", "mask.pgm"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (np.array(Image.open(tmp_path / "mask.pgm")) == expected(model, pixels)).all()


@pytest.mark.parametrize(
    ("model", "picture", "message"),
    [("nowhere.onnx", "photo.ppm", "nowhere.onnx"), ("model.onnx", "photo.png", "photo.png is no binary PPM")],
)
def test_the_cpp_program_says_what_is_wrong(
    model: str, picture: str, message: str, program: Path, tmp_path: Path
) -> None:
    small_model(tmp_path / "model.onnx")
    photo(tmp_path / "photo.ppm")
    photo(tmp_path / "photo.png")
    words = [str(program), model, picture, "mask.pgm"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "mask.pgm").exists()


def run_python(place: Path, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
    monkeypatch.chdir(place)
    exec(compile(block("py"), "docs/deploy.md", "exec"), {"__name__": "example"})
    return np.array(Image.open("mask.png"))


def test_the_python_program_gives_the_classes_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shipped").mkdir()
    model = small_model(tmp_path / "shipped" / "model.onnx")
    photo(tmp_path / "photo.jpg")
    pixels = np.array(Image.open(tmp_path / "photo.jpg"))
    found = expected(model, pixels)
    assert (run_python(tmp_path, monkeypatch) == found).all()
    assert set(re.findall(r"'(\w)': 0\.\d", capsys.readouterr().out)) == {"abcde"[k] for k in np.unique(found)}


@pytest.mark.slow
def test_an_export_in_the_python_program_is_the_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = save_run(tmp_path / "run")
    done = run_here("export", f"checkpoint={checkpoint}", "output=shipped", "formats=[onnx]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    photo(tmp_path / "photo.jpg")
    mask = idd_seg.load(checkpoint, "cpu").predict(tmp_path / "photo.jpg")
    assert (run_python(tmp_path, monkeypatch) == mask).mean() > 0.999
