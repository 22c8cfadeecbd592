"""A folder with a page that shows the student in a browser: the page, the network, and what runs it there."""

from __future__ import annotations

import html
import shutil
from pathlib import Path
from typing import Any

from idd_seg.checkpoints.data_card import DataCard
from idd_seg.errors import ConfigError
from idd_seg.exporting.onnx_classes import write_classes
from idd_seg.exporting.web_runtime import FILES, PACKAGE, PROGRAM, SCRIPT, Runtime
from idd_seg.ops.html_page import as_json, asset, filled, hash_source, joined_scripts, json_element, policy_attribute

FOLDER, PAGE, MODEL = "web", "index.html", "model.onnx"
LICENCE = "onnxruntime-web.LICENSE"
SCRIPTS = ("network", "legend", "view", "main")  # `legend` and `view` call each other when somebody acts
# Longest sides of the pictures that are shown, of which one is chosen on the page.
SIDES, SIDE = (320, 480, 640, 960, 1280, 1600), 640
MOST_LOGITS = 2**29  # bytes, of a square picture: WebAssembly has 4 GiB for everything


def check_card(card: DataCard) -> None:
    """Refuse a network whose pictures no browser gives.

    Raises:
        ConfigError: that names channels and bits.
    """
    if not card.pixels.photograph:
        raise ConfigError(
            f"formats=[web]: a browser gives RGB of 8 bits, and this network takes pictures of {card.pixels}; "
            "leave web out of formats"
        )


def write_web(logits: Path, folder: Path, card: DataCard, name: str, runtime: Runtime) -> dict[str, dict[str, Any]]:
    """Write the folder; return the size of each file by its name.

    Args:
        logits: the ONNX file of the network.
        name: of the network, for the page's heading.
    """
    folder.mkdir()
    write_classes(logits, folder / MODEL)
    for file in FILES:
        shutil.copyfile(runtime.folder / file, folder / file)
    text = f"{PACKAGE} {runtime.version}: {', '.join(FILES)}\n\n{asset('idd_seg.exporting', 'web', LICENCE)}"
    (folder / f"{LICENCE}.txt").write_text(text, encoding="utf-8")
    (folder / PAGE).write_text(make_page(name, card), encoding="utf-8")
    return {path.name: {"bytes": path.stat().st_size} for path in sorted(folder.iterdir())}


def make_page(name: str, card: DataCard) -> str:
    """Return the page. Its scripts run by their hashes; nothing is loaded but from its own folder."""
    script = joined_scripts([_asset(f"{part}.js") for part in SCRIPTS])
    style = _asset("page.css")
    policy = (
        f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval' {hash_source(script)}; worker-src blob:; "
        f"connect-src 'self'; style-src {hash_source(style)}; img-src data: blob:; media-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    about = f"Semantic segmentation, {len(card.class_names)} classes of {card.name}; it runs in this browser, offline."
    values = {
        "POLICY": policy_attribute(policy),
        "TITLE": html.escape(name),
        "ABOUT": html.escape(about),
        "STYLE": style,
        "MODEL": json_element("model", as_json(_model(card))),
        "WORKER": _asset("worker.js"),
        "SCRIPT": script,
    }
    return filled(_asset("index.html"), values)


def _model(card: DataCard) -> dict[str, Any]:
    sides = _sides(len(card.class_names))
    return {
        "file": MODEL,
        "script": SCRIPT,
        "program": PROGRAM,
        "names": card.class_names,
        "palette": [list(colour) for colour in card.palette],
        "sides": sides,
        "side": min(SIDE, sides[-1]),
    }


def _sides(classes: int) -> list[int]:
    """Return the sides at which a picture's logits fit into the memory; the smallest in any case."""
    return [side for side in SIDES if side == SIDES[0] or 4 * classes * side**2 <= MOST_LOGITS]


def _asset(name: str) -> str:
    return asset("idd_seg.exporting", "web", name)
