"""Install into FOLDER what this project lacks, from wheels that lie beside it: `install_wheels.py WHEELS FOLDER`.

For machines that have PyTorch and no network. Nothing that is there is changed: wheels of packages that can be imported
are left out, and no dependency is looked up. Put FOLDER on PYTHONPATH. Needs pip, and nothing else.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

# What is imported -> the package that has it. The last ones are packages of packages.
MODULES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "lightning": "lightning",
    "hydra": "hydra-core",
    "omegaconf": "omegaconf",
    "torchmetrics": "torchmetrics",
    "albumentations": "albumentations",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface-hub",
    "filelock": "filelock",
    "yaml": "pyyaml",
    "rich": "rich",
    "matplotlib": "matplotlib",
    "pytest": "pytest",
    "antlr4": "antlr4-python3-runtime",
    "albucore": "albucore",
    "simsimd": "simsimd",
    "stringzilla": "stringzilla",
    "scipy": "scipy",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection",
}


def missing(folder: Path) -> list[str]:
    """Return the packages that can be imported neither as they are nor from a folder."""
    sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        return [package for module, package in MODULES.items() if importlib.util.find_spec(module) is None]
    finally:
        sys.path.remove(str(folder))


def package_of(wheel: Path) -> str:
    """Return the name of the package that a wheel holds, as indexes write it."""
    return wheel.name.split("-")[0].lower().replace("_", "-").replace(".", "-")


def chosen(wheels: Iterable[Path], lacking: Sequence[str]) -> list[Path]:
    """Return the wheels of packages that are lacking."""
    return sorted(wheel for wheel in wheels if package_of(wheel) in lacking)


def main(arguments: Sequence[str]) -> int:
    """Install, and return 0; or 2, if packages are lacking after it."""
    if len(arguments) != 2:
        print("usage: install_wheels.py WHEELS FOLDER", file=sys.stderr)
        return 2
    wheels, folder = (Path(word) for word in arguments)
    taken = chosen(wheels.glob("*.whl"), missing(folder))
    if taken:
        print(f"installing from '{wheels}': {', '.join(package_of(wheel) for wheel in taken)}", flush=True)
        words = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check", "--upgrade"]
        command = [sys.executable, "-m", "pip", "install", *words, "--target", str(folder), *map(str, taken)]
        if code := subprocess.run(command).returncode:
            print(f"error: pip ended with exit code {code}; see above which wheel does not fit", file=sys.stderr)
            return 2
    lacking = missing(folder)
    if lacking:
        what = f"{len(lacking)} packages are" if len(lacking) > 1 else "a package is"
        print(
            f"error: {what} neither installed for {sys.executable} nor among the wheels in '{wheels}': "
            f"{', '.join(lacking)}; where there is a network: pip wheel --no-deps -w {wheels} {' '.join(lacking)}",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
