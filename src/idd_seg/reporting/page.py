"""One HTML file that needs nothing else: style, scripts and data inside, and no right to ask a network."""

from __future__ import annotations

import html

from idd_seg.ops.html_page import asset, filled, hash_source, joined_scripts, json_element, policy_attribute
from idd_seg.reporting.content import Content

SCRIPTS = ("core", "table", "chart", "curves", "bars", "heat", "slider", "cases", "parallel", "main")


def make_page(title: str, content: Content) -> str:
    """Return the page. Style and script run by their hashes alone; nothing else may be loaded but data URIs."""
    script = joined_scripts([_asset(f"{name}.js") for name in SCRIPTS])
    style = _asset("report.css")
    policy = (
        f"default-src 'none'; script-src {hash_source(script)}; style-src {hash_source(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    exhibits = "\n".join(json_element(f"exhibits-{i}", text) for i, text in content.exhibits.items())
    values = {
        "POLICY": policy_attribute(policy),
        "TITLE": html.escape(title),
        "STYLE": style,
        "TABLE": json_element("table-data", content.table),
        "CURVES": json_element("curves-data", content.curves),
        "EXHIBITS": exhibits,
        "SCRIPT": script,
    }
    return filled(_asset("report.html"), values)


def _asset(name: str) -> str:
    return asset("idd_seg.reporting", "page", name)
