"""docs/options.md lists what conf/ holds."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from idd_seg.config.groups import chosen_groups, config_dir, known_keys, options_of

TOP = Path(__file__).parents[1]
SCRIPT = TOP / "scripts" / "write_options.py"
PAGE = (TOP / "docs" / "options.md").read_text(encoding="utf-8")
LISTED = set(re.findall(r"^\| `([^`]+)` \|", PAGE, re.M))


def writer() -> ModuleType:
    spec = spec_from_file_location("write_options", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["write_options"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_page_is_as_it_would_be_written_now() -> None:
    assert writer().page() == PAGE, "docs/options.md is old: run python scripts/write_options.py"


def test_the_script_loads_without_pytorch() -> None:
    code = f"import sys, runpy; runpy.run_path({str(SCRIPT)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def is_listed(key: str) -> bool:
    """Say whether an option has a row, or stands in a part for which one row refers to another table."""
    parts = key.split(".")
    fronts = [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
    return key in LISTED or any(f"{front}.*" in LISTED or f"here as `{front}.*`" in PAGE for front in fronts)


@pytest.mark.parametrize("data", options_of("data"))
def test_every_option_of_a_training_has_a_row(data: str) -> None:
    root = ["data.root=."] if data == "folder" else []
    keys = known_keys("train", [f"data={data}", *root])
    inner = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    ours = [key for key in inner if re.fullmatch(r"[a-z]\w*(\.[a-z]\w*)*", key) and not key.startswith("hydra.")]
    assert len(ours) > 100
    assert not [key for key in ours if not is_listed(key) and key not in chosen_groups("train")]


def test_every_choice_has_a_row() -> None:
    for command in (path.stem for path in config_dir().glob("*.yaml")):
        for group in chosen_groups(command):
            section = PAGE.split(f"### `{group}=`", 1)[1].split("\n### ", 1)[0]
            assert set(options_of(group)) <= set(re.findall(r"^\| `([^`]+)` \|", section, re.M))
