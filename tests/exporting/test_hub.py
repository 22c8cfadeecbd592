"""Sending an exported folder to a model hub, and opening it from there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from idd_seg.errors import ConfigError
from idd_seg.exporting.hub import check_name, check_push
from tests.exporting.hub_server import TOKEN, Hub, hub

SEND = """
import sys
from pathlib import Path
from idd_seg.exporting.hub import push
print(push(Path(sys.argv[1]), sys.argv[2]))
"""
FETCH = """
import sys
from idd_seg.exporting.hub import fetched
print(fetched(sys.argv[1]))
"""


def python(
    code: str, *words: str, server: Hub | None, folder: Path, token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: the hub's client reads its address and token when it is imported."""
    address = server.address if server else "http://127.0.0.1:9"  # where nobody listens
    own = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf"), "HF_TOKEN": token}
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), "")
    command = [sys.executable, "-c", code, *words]
    environment = {**os.environ, **proxies, **own, "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"format": 1}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "README.md").write_text("# A student\n")
    return folder


def test_what_is_sent_comes_back(exported: Path, tmp_path: Path) -> None:
    with hub() as server:
        sent = python(SEND, str(exported), "ann/scenes", server=server, folder=tmp_path)
        assert sent.returncode == 0, sent.stderr
        assert sent.stdout.strip() == f"{server.address}/ann/scenes"
        assert server.private == {"ann/scenes": True}
        files = server.repositories["ann/scenes"]
        assert files == {path.name: path.read_bytes() for path in exported.iterdir()}
        back = python(FETCH, "ann/scenes", server=server, folder=tmp_path)
        assert back.returncode == 0, back.stderr
    found = Path(back.stdout.strip())
    # What can be opened, and nothing else of a stranger's.
    assert {path.name for path in found.iterdir()} == {"config.json", "model.safetensors"}
    assert (found / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()


def test_a_refusal_says_what_is_left_to_do(exported: Path, tmp_path: Path) -> None:
    with hub() as server:
        refused = python(SEND, str(exported), "ann/scenes", server=server, folder=tmp_path, token="hf_wrong")
        missing = python(FETCH, "ann/nothing", server=server, folder=tmp_path)
    last = refused.stderr.strip().splitlines()[-1]
    assert "hub=ann/scenes: " in last
    assert "401" in last
    assert f"`hf upload ann/scenes {exported}` sends it later" in last
    assert exported.is_dir()
    assert "'ann/nothing': RepositoryNotFoundError" in missing.stderr.strip().splitlines()[-1]


def test_a_hub_that_does_not_answer(tmp_path: Path) -> None:
    result = python(FETCH, "ann/scenes", server=None, folder=tmp_path)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("idd_seg.errors.UserError: 'ann/scenes': ")
    assert "is the hub reached?" in last


@pytest.mark.parametrize("name", ["scenes", "ann/", "/scenes", "ann/sce nes", "http://ann/scenes", "../ann", "a/b/c"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be OWNER/NAME"):
        check_name(name)


def test_what_a_push_needs_is_asked_for_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="there is no token to write there; set HF_TOKEN"):
        check_push("ann/scenes", ["safetensors", "onnx"])
    with pytest.raises(ConfigError, match="add safetensors to formats"):
        check_push("ann/scenes", ["onnx"])
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    check_push("ann/scenes", ["safetensors"])
