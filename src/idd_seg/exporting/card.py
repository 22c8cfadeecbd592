"""`README.md` of an exported folder: what the model is, how it is used, where it comes from."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from idd_seg.checkpoints.data_card import DataCard
from idd_seg.data.pipeline.pixels import Pixels

ONNX_EXAMPLE = """```py
import numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("model.onnx")
image = np.array(Image.open("photo.jpg").convert("RGB")).transpose(2, 0, 1)[None]  # (1, 3, H, W) uint8
logits = session.run(["logits"], {"image": image})[0]  # (1, K, H, W) float32
mask = logits.argmax(1)[0]
```"""
HEAD = """---
library_name: idd-seg
pipeline_tag: image-segmentation
tags: [semantic-segmentation, knowledge-distillation]
---"""
ONNX_PLANES = """```py
import numpy as np, onnxruntime, tifffile

session = onnxruntime.InferenceSession("model.onnx")
picture = tifffile.imread("picture.tif")  # (H, W, {channels}) {dtype}
image = picture.reshape(*picture.shape[:2], {channels}).transpose(2, 0, 1)[None]  # (1, {channels}, H, W)
logits = session.run(["logits"], {{"image": image}})[0]  # (1, K, H, W) float32
mask = logits.argmax(1)[0]
```"""
WEB = """`web/index.html` shows the model in a browser, offline:

```sh
python -m http.server -d FOLDER/web
```"""
OWN_EXAMPLE = """```py
import idd_seg

model = idd_seg.load("FOLDER")
mask = model.predict("photo.jpg")  # (H, W) class ids
```"""


def model_card(
    config: Mapping[str, Any], card: DataCard, report: Mapping[str, Any], metrics: Mapping[str, Any] | None
) -> str:
    """Return the page, as Markdown with the head that model hubs read."""
    parts = [
        HEAD,
        f"# {_plain(config['name'] or 'student')}",
        f"A semantic-segmentation network ({_plain(config['student'].get('backbone', 'its own'))}, "
        f"{report['parameters'] / 1e6:.2f} million parameters) for the {len(card.class_names)} classes of "
        f"{_plain(card.name)}. The student alone: no teacher, no auxiliary head; "
        "BatchNorm is folded into the convolutions.",
        "## Files",
        _files(report["files"]),
        "## Use",
        *([_own_example(card.pixels)] if "model.safetensors" in report["files"] else []),
        *([_onnx_example(card.pixels)] if "model.onnx" in report["files"] else []),
        *([WEB] if "web/index.html" in report["files"] else []),
        "## Input",
        _input(card),
        "## Classes",
        _classes(card, metrics),
        *([] if metrics is None else ["## Scores", _scores(metrics)]),
        "## Where it comes from",
        _source(config["source"]),
    ]
    return "\n\n".join(parts) + "\n"


def _files(files: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, entry in files.items():
        parity = entry.get("parity")
        found = "" if parity is None else f"{parity['max_abs_difference']:.1e} of {parity['max_abs_logit']:.1f}"
        rows.append([f"`{name}`", f"{entry['bytes'] / 1e6:.2f}", found])
    return table(["file", "MB", "largest difference from PyTorch, of the largest logit"], rows)


def _own_example(pixels: Pixels) -> str:
    return OWN_EXAMPLE if pixels.photograph else OWN_EXAMPLE.replace("photo.jpg", "picture.tif")


def _onnx_example(pixels: Pixels) -> str:
    return ONNX_EXAMPLE if pixels.photograph else ONNX_PLANES.format(channels=pixels.channels, dtype=pixels.dtype)


def _input(card: DataCard) -> str:
    pixels = card.pixels
    kind = "RGB pictures" if pixels.photograph else f"pictures of {pixels}"
    order = "R, G, B" if pixels.photograph else "of each channel, in the order of the files"
    lines = [
        f"ONNX and `torch.export` files take {kind} as they are, `image` (N, {pixels.channels}, H, W) {pixels.dtype} "
        f"0 to {pixels.white}, of any number and size, and give `logits` (N, K, H, W) float32 at the picture's size. "
        "Inside, in this order:",
        *([f"- scaled to {card.image_scale:g} of the size, bilinear"] if card.image_scale != 1 else []),
        f"- `(value / {pixels.white} - mean) / std`, mean {card.mean}, std {card.std} ({order})",
        "- the network, and its logits enlarged bilinearly (half-pixel centres)",
    ]
    return "\n".join([lines[0], "", *lines[1:]])


def _classes(card: DataCard, metrics: Mapping[str, Any] | None) -> str:
    iou = (metrics or {}).get("iou")
    scores = iou if isinstance(iou, Mapping) else {}
    rows = [
        [str(i), _plain(name), "#{:02x}{:02x}{:02x}".format(*colour), _percent(scores.get(name))]
        for i, (name, colour) in enumerate(zip(card.class_names, card.palette, strict=True))
    ]
    columns = ["id", "class", "colour", "IoU, %"]
    if not scores:
        rows, columns = [row[:3] for row in rows], columns[:3]
    return table(columns, rows) + f"\n\nLabels of {card.ignore_index} took no part in training."


def _scores(metrics: Mapping[str, Any]) -> str:
    return (
        f"mIoU {_percent(metrics['miou'])} %, pixel accuracy {_percent(metrics.get('pixel_accuracy'))} % on the split "
        f"`{_plain(metrics.get('split'))}`, as the training run measured them (step {_plain(metrics.get('step'))}), "
        "in float32."
    )


def _source(source: Mapping[str, Any]) -> str:
    teacher = source.get("teacher")
    taught = "none"
    if isinstance(teacher, Mapping):
        taught = f"{_plain(teacher.get('file'))}, SHA-256 {_plain(teacher.get('sha256'))}"
    rows = [
        ["checkpoint", f"{_plain(source.get('checkpoint'))}, SHA-256 {_plain(source.get('sha256'))}"],
        ["seed", _plain(source.get("seed"))],
        ["commit", _plain(source.get("commit") or "not known")],
        ["teacher", taught],
    ]
    versions = source.get("trained_with")
    if isinstance(versions, Mapping):
        rows.append(["trained with", ", ".join(f"{_plain(k)} {_plain(v)}" for k, v in versions.items())])
    return table(["", ""], rows)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(value: Any) -> str:
    return f"{100 * value:.2f}" if isinstance(value, float) and value == value else "-"


def _plain(value: Any) -> str:
    """Return text that Markdown and HTML show as it is, on one line: a stranger may have written it."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|#!" else c for c in text)
