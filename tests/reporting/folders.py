"""Run folders as training leaves them, made without training."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
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
            (picture.convert("RGB") if name.endswith(".jpg") else picture.convert("P")).save(place / name)
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
