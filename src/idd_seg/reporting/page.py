"""One HTML file that needs nothing else: style, scripts and data inside, and no right to ask a network."""

from __future__ import annotations

import base64
import hashlib
import html
from importlib.resources import files

from idd_seg.reporting.content import Content

SCRIPTS = ("core", "table", "chart", "curves", "bars", "heat", "slider", "cases", "parallel", "main")


def make_page(title: str, content: Content) -> str:
    """Return the page. Style and script run by their hashes alone; nothing else may be loaded but data URIs."""
    script = "(() => {\n'use strict';\n" + "\n".join(_asset(f"{name}.js") for name in SCRIPTS) + "\n})();\n"
    style = _asset("report.css")
    policy = (
        f"default-src 'none'; script-src 'sha256-{_hash(script)}'; style-src 'sha256-{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    exhibits = "\n".join(_data(f"exhibits-{i}", text) for i, text in content.exhibits.items())
    values = {
        "POLICY": html.escape(policy, quote=True).replace("&#x27;", "'"),
        "TITLE": html.escape(title),
        "STYLE": style,
        "TABLE": _data("table-data", content.table),
        "CURVES": _data("curves-data", content.curves),
        "EXHIBITS": exhibits,
        "SCRIPT": script,
    }
    # In one pass: no value is searched for another's mark.
    pieces = _asset("report.html").split("@@")
    return "".join(values[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _asset(name: str) -> str:
    return (files("idd_seg.reporting") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(name: str, text: str) -> str:
    return f'<script type="application/json" id="{name}">{text}</script>'
