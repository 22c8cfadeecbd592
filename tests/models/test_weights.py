"""Files of weights that a stranger may have written: refused with one message, and nothing in them is executed."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.errors import CheckpointError
from idd_seg.models.backbone import Backbone
from idd_seg.models.pretrained.weights import read_weights
from tests.helpers import TINY, run

READERS: dict[str, Callable[[Path | str], Any]] = {
    "weights": read_weights,
    "checkpoint": read_checkpoint,
    "backbone": lambda path: Backbone("resnet18", weights=str(path)),
}


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_hostile_file_would_be_executed_by_an_open_reader(tmp_path: Path) -> None:
    """The tests below prove nothing otherwise."""
    pickle.loads(pickle.dumps(Hostile(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["a.ckpt", "a.pth", "a.safetensors"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "plain pickle"])
def test_a_hostile_file_is_refused_and_not_executed(tmp_path: Path, reader: str, name: str, legacy: bool) -> None:
    path, mark = tmp_path / name, tmp_path / "mark"
    content = {"state_dict": {"student.x": Hostile(mark)}, "idd_seg": {"format": 1}}
    path.write_bytes(pickle.dumps(content, protocol=2)) if legacy else torch.save(content, path)
    with pytest.raises(CheckpointError, match=str(path)):
        READERS[reader](path)
    assert not mark.exists()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "url", ["https://example.org/a.ckpt", "http://example.org/a.pth", "s3://bucket/a", "file:///a", "hf://a/b"]
)
def test_a_url_is_refused(reader: str, url: str) -> None:
    with pytest.raises(CheckpointError, match="is a URL; download the file"):
        READERS[reader](url)


def test_a_url_that_became_a_path_is_refused() -> None:
    with pytest.raises(CheckpointError, match="is a URL"):
        read_weights(Path("https://example.org/a.ckpt"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("fault", ["missing", "folder", "empty", "truncated", "text"])
def test_a_damaged_file_is_named_with_its_fault(tmp_path: Path, reader: str, suffix: str, fault: str) -> None:
    path = tmp_path / f"a b.{suffix}"
    if fault == "folder":
        path.mkdir()
    elif fault == "empty":
        path.touch()
    elif fault == "text":
        path.write_text("not weights")
    elif fault == "truncated":
        weights = {"x": torch.randn(100)}
        save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
        path.write_bytes(path.read_bytes()[:-200])
    said = {"missing": "there is no file", "folder": "is a folder; give a file in it", "empty": "is empty"}
    with pytest.raises(CheckpointError, match=said.get(fault, "damaged|no readable weight file")) as caught:
        READERS[reader](path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("content", "kind"), [(torch.zeros(2), "Tensor"), ([1, 2], "list"), ("x", "str")])
def test_what_is_no_dictionary_is_refused(tmp_path: Path, reader: str, content: Any, kind: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=f"holds a {kind}, not a dictionary"):
        READERS[reader](tmp_path / "a.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_is_good_is_read_as_it_is(tmp_path: Path, suffix: str) -> None:
    weights, path = {"a": torch.randn(3), "b.c": torch.arange(4)}, tmp_path / f"a.{suffix}"
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    found = read_weights(path)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    assert read_weights("~/a.pth")["a"] == 1


def test_right_weights_are_taken_without_a_word(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "whole.pth")  # with its classifier
    options = ["loss=ce", "student=r18", "student.weights=whole.pth", "trainer.max_steps=1", "hydra.run.dir=run"]
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = run("train", *TINY, *options, cwd=tmp_path, env=path)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert not [word for word in ("timm", "Unexpected", "srun", "HINT", "Tip", "pytree") if word in said], said
