"""What a run folder's exhibits become in W&B: pictures with masks, tables, matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from idd_seg.metrics.confusion import Scores
from idd_seg.plotting.figures import figure, literal

# Of W&B's own charts of a matrix; more classes could not be told apart in them, and are a picture and the table of IoU.
MOST_CLASSES = 40


def panels(folder: Path, scores: Scores, class_names: list[str]) -> dict[str, Any]:
    """Return what W&B is to show at the end of a run, by key.

    Args:
        folder: of `exhibits.json`; where it is missing, the table of the classes is all.
        scores: of the last validation.
    """
    import wandb

    rows = [[name, None if iou != iou else iou] for name, iou in zip(class_names, scores.iou, strict=True)]
    found: dict[str, Any] = {"classes/iou": wandb.Table(columns=["class", "IoU"], data=rows)}
    path = folder / "exhibits.json"
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        found |= {"predictions": _predictions(folder, content)}
        found |= _confusion(content) | _distances(content) | _position(content)
    return found


def _predictions(folder: Path, content: dict[str, Any]) -> list[Any]:
    """Return the held-out images, with a mask each for truth and networks that can be shown and hidden."""
    import wandb

    labels = {**dict(enumerate(content["class_names"])), 255: "ignored"}
    pictures = []
    for sample in content["samples"]:
        kinds = [kind for kind in ("truth", "student", "teacher") if sample[kind] is not None]
        masks = {k: {"mask_data": np.asarray(Image.open(folder / sample[k])), "class_labels": labels} for k in kinds}
        pictures.append(wandb.Image(str(folder / sample["image"]), masks=masks, caption=sample["name"]))
    return pictures


def _confusion(content: dict[str, Any]) -> dict[str, Any]:
    """Return the confusion matrix as shares of each true class, as a picture, and as W&B's own chart of pixels."""
    import wandb

    if content["confusion"] is None:
        return {}
    names, counts = content["class_names"], np.array(content["confusion"], np.float64)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    found = {"confusion/shares": _heat_maps({"share of the true class's pixels": shares}, names, "truth", "prediction")}
    if len(names) <= MOST_CLASSES:
        rows = [[t, p, int(counts[i, j])] for i, t in enumerate(names) for j, p in enumerate(names)]
        found["confusion/pixels"] = wandb.plot_table(
            "wandb/confusion_matrix/v1",
            wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=rows),
            {key: key for key in ("Actual", "Predicted", "nPredictions")},
            {"title": f"pixels, {content['split']} split"},
        )
    return found


def _distances(content: dict[str, Any]) -> dict[str, Any]:
    """Return the class-distance matrices side by side in one scale, and a table of the pairs of classes."""
    import wandb

    known = {name: np.array(m, np.float64) for name, m in content["class_distances"].items() if m is not None}
    if not known:
        return {}
    names = content["class_names"]
    found = {"class_distances/maps": _heat_maps(known, names)}
    if len(names) <= MOST_CLASSES:
        rows = [
            [names[i], names[j], *(None if np.isnan(m[i, j]) else float(m[i, j]) for m in known.values())]
            for i in range(len(names))
            for j in range(i)
        ]
        found["class_distances/pairs"] = wandb.Table(columns=["class", "other", *known], data=rows)
    return found


def _position(content: dict[str, Any]) -> dict[str, Any]:
    maps = content["position"]
    if maps is None:
        return {}
    shown = {
        f"{kind}, {target}": np.array(maps[kind][i], np.float64)
        for i, target in enumerate(maps["targets"])
        for kind in ("student", "truth")
    }
    return {"position/maps": _heat_maps(shown, [])}


def _heat_maps(maps: dict[str, NDArray[np.float64]], names: list[str], ylabel: str = "", xlabel: str = "") -> Any:
    """Draw matrices side by side in one scale; `names` stand along both sides if there is room for them."""
    import wandb

    top = max(float(np.nan_to_num(m).max()) for m in maps.values())
    fig = figure(3.2 * len(maps) + (1.2 if names else 0), 3.6)
    axes = fig.subplots(1, len(maps), squeeze=False)[0]
    for i, (axis, (title, values)) in enumerate(zip(axes, maps.items(), strict=True)):
        axis.imshow(values, vmin=0, vmax=top, cmap="viridis", interpolation="nearest")
        axis.set_title(title, fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
        if names and len(names) <= MOST_CLASSES:
            labels = [literal(name) for name in names]
            axis.set_xticks(range(len(names)), labels, rotation=90, fontsize=6)
            axis.set_yticks(range(len(names)), labels if i == 0 else [""] * len(names), fontsize=6)
        axis.set_xlabel(xlabel, fontsize=8)
        axis.set_ylabel(ylabel, fontsize=8)
    fig.tight_layout()
    fig.canvas.draw()
    return wandb.Image(Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3].copy()))
