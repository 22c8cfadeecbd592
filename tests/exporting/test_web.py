"""The folder with a page for browsers, without a browser: its content, where its runtime comes from, mistakes."""

from __future__ import annotations

import hashlib
import html.parser
import io
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from idd_seg import export as command
from idd_seg.data.pipeline.pixels import Pixels
from idd_seg.errors import ConfigError, UserError
from idd_seg.exporting import parity, web, web_runtime
from idd_seg.exporting.web_runtime import FILES, VERSION, runtime_of
from idd_seg.ops.html_page import hash_source
from tests.commands import call
from tests.exporting.channels_file import logits_file
from tests.exporting.test_graph import card
from tests.shipping import save_run

HOSTILE = "</script><img src=x onerror=window.hacked=1><b>\"'&@@SCRIPT@@"


class Elements(html.parser.HTMLParser):
    """The elements of a page: (name, attributes, text)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}", {}, ""))

    def handle_data(self, data: str) -> None:
        if self.found:
            name, attributes, text = self.found[-1]
            self.found[-1] = (name, attributes, text + data)

    def named(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


def test_names_are_text_and_nothing_else() -> None:
    pictures = card()
    pictures.class_names[1] = HOSTILE
    found = Elements(web.make_page(HOSTILE, pictures))
    scripts = found.named("script")
    assert [attributes.get("id") for attributes, _ in scripts] == ["model", "worker", None]
    model = json.loads(scripts[0][1])
    assert model["names"] == pictures.class_names
    assert model["palette"] == [list(colour) for colour in pictures.palette]
    assert not found.named("img")
    assert found.named("h1")[0][1] == HOSTILE


def test_only_its_own_scripts_and_folder_are_allowed() -> None:
    page = web.make_page("a student", card())
    found = Elements(page)
    policy = next(a["content"] for a, _ in found.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = {rule.split()[0]: rule.split()[1:] for rule in str(policy).split("; ")}
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == ["'self'", "'wasm-unsafe-eval'", hash_source(found.named("script")[-1][1])]
    assert rules["style-src"] == [hash_source(found.named("style")[0][1])]
    assert rules["connect-src"] == ["'self'"]
    assert not re.findall(r"https?://(?!localhost)", page)
    assert not [a for _, a, _ in found.found if any(name.startswith("on") for name in a)]


@pytest.mark.parametrize(("pixels", "said"), [(Pixels(4, 8), "4 channels"), (Pixels(3, 16), "16 bits")])
def test_a_network_of_other_pictures_is_refused(pixels: Pixels, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"formats=\[web\].*{said}.*leave web out"):
        web.check_card(replace(card(), pixels=pixels))


def test_sides_are_bounded_by_the_memory_of_the_logits() -> None:
    def sides(classes: int) -> list[int]:
        names, palette = [str(i) for i in range(classes)], [(0, 0, i % 256) for i in range(classes)]
        page = web.make_page("x", replace(card(), class_names=names, palette=palette))
        found: list[int] = json.loads(Elements(page).named("script")[0][1])["sides"]
        return found

    assert sides(11) == list(web.SIDES)
    assert sides(150) == [320, 480, 640]
    assert sides(2000) == [320]


def test_the_folder_holds_page_network_runtime_and_licence(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    logits_file(tmp_path / "logits.onnx")
    written = web.write_web(
        tmp_path / "logits.onnx", tmp_path / "web", card(), "x", web_runtime.Runtime(package(tmp_path) / "dist", "9.9")
    )
    folder = tmp_path / "web"
    assert {path.name for path in folder.iterdir()} == {
        "index.html",
        "model.onnx",
        "onnxruntime-web.LICENSE.txt",
        *FILES,
    }
    assert written["model.onnx"] == {"bytes": (folder / "model.onnx").stat().st_size}
    text = (folder / "onnxruntime-web.LICENSE.txt").read_text()
    assert "onnxruntime-web 9.9" in text
    assert "Copyright (c) Microsoft Corporation" in text
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"class_names": "a\nb\nc"}
    image = np.array([[[[1, 5]], [[1, 9]], [[0, 9]]]], np.uint8)  # equal logits: the lowest class wins
    classes = session.run(None, {"image": image})[0]
    assert classes.dtype == np.int32
    assert classes.tolist() == [[[0, 1]]]


def test_classes_are_compared_by_what_their_logits_lack() -> None:
    logits = torch.nn.Conv2d(3, 4, 1)
    network = torch.nn.Sequential(logits).eval()

    class Expected(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = network(image.float())
            return found

    expected = Expected()
    same = parity.compare_classes(expected, lambda image: expected(image).argmax(1).int())
    assert (same.difference, same.same_class) == (0, 1)

    def second(image: torch.Tensor) -> torch.Tensor:
        return expected(image).topk(2, 1).indices[:, 1].int()

    other = parity.compare_classes(expected, second)
    assert other.difference > 0
    assert other.same_class == 0
    outside = parity.compare_classes(expected, lambda image: expected(image).argmax(1).int() + 4)
    assert outside.difference == float("inf")


def package(
    folder: Path, name: str = "onnxruntime-web", version: str = "9.9", files: tuple[str, ...] = tuple(FILES)
) -> Path:
    """A folder as npm installs it."""
    (folder / "package" / "dist").mkdir(parents=True)
    (folder / "package" / "package.json").write_text(json.dumps({"name": name, "version": version}))
    for file in files:
        (folder / "package" / "dist" / file).write_text(f"content of {file}")
    return folder / "package"


def test_a_folder_of_the_package_is_taken(tmp_path: Path) -> None:
    found = runtime_of(str(package(tmp_path)), tmp_path / "cache")
    assert found == web_runtime.Runtime(tmp_path / "package" / "dist", "9.9")
    assert not (tmp_path / "cache").exists()


def test_a_folder_of_anything_else_is_refused(tmp_path: Path) -> None:
    cases = {
        "no folder": tmp_path / "none",
        "'other'": package(tmp_path / "a", name="other"),
        "has no ort-wasm-simd-threaded.wasm": package(tmp_path / "b", files=(web_runtime.SCRIPT,)),
        "not as onnxruntime-web": package(tmp_path / "c", version=VERSION),
    }
    for said, folder in cases.items():
        with pytest.raises(ConfigError, match=rf"^web.runtime=.*{said}"):
            runtime_of(str(folder), tmp_path)
    for value in (None, 3, ""):
        with pytest.raises(ConfigError, match=r"web\.runtime must be npm or a folder"):
            runtime_of(value, tmp_path)


def fake_npm(folder: Path, patch: pytest.MonkeyPatch, lines: str) -> None:
    """Put a program called npm before all others."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{lines}\n")
    (folder / "npm").chmod(0o755)
    patch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def archive(path: Path) -> dict[str, str]:
    """An archive as npm packs it, with a file that would be written elsewhere; the SHA-256 of its files."""
    with tarfile.open(path, "w:gz") as packed:
        for name in (*(f"package/dist/{file}" for file in FILES), "../outside"):
            content = f"content of {name}".encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return {file: hashlib.sha256(f"content of package/dist/{file}".encode()).hexdigest() for file in FILES}


def test_npm_is_asked_once_and_its_files_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = archive(tmp_path / "a.tgz")
    cache = tmp_path / "cache"
    fake_npm(tmp_path / "bin", monkeypatch, f'echo "$@" >> {tmp_path}/asked; cp {tmp_path}/a.tgz "$4"')
    with pytest.raises(UserError, match=r"is not as published: ort\.wasm\.bundle\.min\.mjs, ort-wasm"):
        runtime_of("npm", cache)
    assert not list(cache.iterdir())
    monkeypatch.setattr(web_runtime, "FILES", hashes)
    found = runtime_of("npm", cache)
    assert {path.name for path in found.folder.iterdir()} == set(FILES)
    assert (tmp_path / "asked").read_text().splitlines()[0].startswith(f"pack onnxruntime-web@{VERSION} --pack-dest")
    assert runtime_of("npm", cache) == found
    assert len((tmp_path / "asked").read_text().splitlines()) == 2
    (found.folder / web_runtime.SCRIPT).write_text("changed")
    assert runtime_of("npm", cache) == found
    assert (found.folder / web_runtime.SCRIPT).read_text() == f"content of package/dist/{web_runtime.SCRIPT}"
    assert [path.name for path in cache.iterdir()] == [f"onnxruntime-web-{VERSION}"]
    assert not (tmp_path / "outside").exists()


def test_what_npm_says_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, "echo 'npm error code ECONNREFUSED' >&2; exit 1")
    with pytest.raises(UserError, match=r"code ECONNREFUSED; .* web.runtime=FOLDER$"):
        runtime_of("npm", tmp_path / "cache")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["web.runtime=nowhere"], "web.runtime=nowhere: no folder of an npm package"),
        ([], "there is no npm to fetch them; install Node.js, or give the folder"),
    ],
)
def test_without_the_runtime_nothing_is_begun(
    options: list[str],
    said: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(web_runtime.shutil, "which", lambda name: None)
    monkeypatch.setenv("IDD_SEG_CACHE", str(tmp_path / "cache"))
    words = [f"checkpoint={checkpoint}", "formats=[web]", "output=a", "hydra.run.dir=out", *options]
    assert call(command, *words, folder=tmp_path, patch=monkeypatch) == 1
    error = capfd.readouterr().err
    assert said in error
    assert error.count("error: ") == 1
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "cache").exists()
