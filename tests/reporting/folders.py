"""Run folders as training leaves them, made without training."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("road", "tree", "sky")
PALETTE = ((128, 64, 128), (0, 142, 0), (70, 130, 180))


def config(terms: Sequence[str] = ("ce",), teacher: bool = True, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A configuration with what the report looks at; `changes` are top-level keys."""
    loss: dict[str, Any] = {}
    for term in terms:
        loss |= {term: {"_target_": f"idd_seg.losses.{term}", "weight": 1.0}, f"{term}_weight": 1.0}
    model = {"_target_": "idd_seg.models.segmenter.Segmenter", "backbone": "resnet18"}
    return {
        "name": "shapes_small",
        "seed": seed,
        "run_dir": f"somewhere/{random.random()}",
        "student": {"backbone": "resnet18"},
        "teacher": {"name": "medium", "model": model, "checkpoint": "auto"} if teacher else {"model": None},
        "loss": loss,
        "optimizer": {"lr": 0.01},
        "trainer": {"max_steps": 100},
        **changes,
    }


def make_run(
    folder: Path,
    cfg: dict[str, Any],
    miou: float = 0.5,
    *,
    classes: Sequence[str] = CLASSES,
    teacher: Path | None = None,
    points: int = 10,
    columns: int = 1,
    command: Sequence[str] = ("train.py", "loss=ce"),
    state: str | None = "finished",
    error: str | None = None,
) -> Path:
    """Write a whole run folder without exhibits."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(cfg))
    described = {"command": list(command), "seed": cfg["seed"], "state": state, "error": error}
    (folder / "run.json").write_text(json.dumps(described))
    score = {"step": 100, "miou": miou, "pixel_accuracy": 0.8, "iou": dict.fromkeys(classes, miou)}
    metrics = {"split": "val", "last": score, "best": {**score, "miou": miou + 0.01}, "parameters": 1000, "seconds": 12}
    source = {"path": str(teacher / "checkpoints" / "last.ckpt"), "sha256": "0" * 64} if teacher else None
    (folder / "metrics.json").write_text(json.dumps({**metrics, "teacher": source}))
    names = [f"train/extra_{i}" for i in range(columns)]
    lines = [",".join(["epoch", "step", "train/images_per_s", "val/mIoU", *names])]
    for i in range(points):
        curve = "" if i % 5 else f"{miou * (i + 1) / points}"
        lines.append(",".join(["0", str(i), "20", curve, *(f"{(37 * i + k) % 101 / 101:.6f}" for k in range(columns))]))
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def palette_image(ids: NDArray[Any], classes: int) -> Image.Image:
    """Class ids (H, W) as the PNGs of a run hold them."""
    picture = Image.fromarray(ids.astype(np.uint8))
    picture.putpalette([channel for i in range(classes) for channel in PALETTE[i % len(PALETTE)]])
    return picture


def add_scored(
    folder: Path, mious: Mapping[str, float | None], wrong: int = 0, *, classes: int = 3, size: int = 16
) -> Path:
    """Write `exhibits/scored.zip` into a run folder: pictures by name, whose masks are right but for `wrong` columns.

    The first column of the truth is not labelled.
    """
    (folder / "exhibits").mkdir(exist_ok=True)
    path = folder / "exhibits" / "scored.zip"
    truth = np.tile(np.arange(size) * classes // size, (size, 1))
    truth[:, 0] = 255
    found = np.where(np.arange(size) < size - wrong, np.arange(size) * classes // size, 0)
    entries = []
    with zipfile.ZipFile(path, "w") as archive:
        for i, (name, miou) in enumerate(mious.items()):
            pictures = {
                "image": Image.linear_gradient("L").resize((size, size)).convert("RGB"),
                "truth": palette_image(truth, classes),
                "student": palette_image(np.tile(found, (size, 1)), classes),
            }
            names = {kind: f"{i}_{kind}.{'jpg' if kind == 'image' else 'png'}" for kind in pictures}
            for kind, picture in pictures.items():
                out = io.BytesIO()
                picture.save(out, "JPEG" if kind == "image" else "PNG")
                archive.writestr(names[kind], out.getvalue())
            entries.append({"name": name, "miou": {"student": miou}, **names})
        content = {"format": 1, "split": "val", "length": 100, "images": entries}
        archive.writestr("scored.json", json.dumps(content))
    return path


def add_exhibits(
    folder: Path, classes: Sequence[str] = CLASSES, teacher: bool = True, size: int = 32
) -> dict[str, Any]:
    """Write `exhibits/` into a run folder and return what its JSON holds."""
    place = folder / "exhibits"
    place.mkdir()
    n = len(classes)
    samples = []
    for i in range(2):
        names = {"image": f"{i}_image.jpg", "truth": f"{i}_truth.png", "student": f"{i}_student.png"}
        names |= {"teacher": f"{i}_teacher.png"} if teacher else {}
        for k, name in enumerate(names.values()):
            picture = Image.linear_gradient("L").rotate(90 * (k + i)).resize((size, size))
            # The second sample lacks the last class.
            ids = np.asarray(picture).astype(int) * max(1, n - i) // 256
            (picture.convert("RGB") if name.endswith(".jpg") else palette_image(ids, n)).save(place / name)
        samples.append({"name": f"sample {i}", "teacher": None, **names})
    distances = [[float(abs(i - j)) for j in range(n)] for i in range(n)]
    content = {
        "format": 1,
        "split": "val",
        "class_names": list(classes),
        "palette": [list(PALETTE[i % len(PALETTE)]) for i in range(n)],
        "samples": samples,
        "class_distances": {"student": distances, "teacher": distances if teacher else None},
        "confusion": [[10 * (i == j) + 1 for j in range(n)] for i in range(n)],
        "position": None,
    }
    (place / "exhibits.json").write_text(json.dumps(content))
    return content
