"""The wheel and the sdist hold the configurations, and the installed package finds them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist of the checkout; the wheel is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(TOP)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def configurations() -> set[str]:
    return {str(p.relative_to(TOP)) for p in (TOP / "conf").rglob("*.yaml")}


@pytest.mark.slow
def test_the_wheel_holds_every_configuration(built: Path) -> None:
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    assert {f"idd_seg/{name}" for name in configurations()} <= names


@pytest.mark.slow
def test_the_wheel_holds_the_parts_of_pages(built: Path) -> None:
    parts = [
        p.relative_to(TOP / "src") for p in (TOP / "src" / "idd_seg").rglob("*") if p.suffix in (".js", ".css", ".html")
    ]
    assert any("exporting" in part.parts for part in parts)
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    assert {part.as_posix() for part in parts} <= names
    assert "idd_seg/exporting/web/onnxruntime-web.LICENSE" in names


@pytest.mark.slow
def test_the_sdist_holds_every_configuration(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert configurations() <= names


@pytest.mark.slow
def test_an_unpacked_wheel_finds_its_configurations(built: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(tmp_path / "site")
    code = "import idd_seg.config.command_line as c; print(c.config_dir())"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {code}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == str(tmp_path / "site" / "idd_seg" / "conf"), result.stderr
