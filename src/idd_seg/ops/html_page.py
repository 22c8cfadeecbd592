"""Pages that consist of one HTML file: style, scripts and data inside, which nothing can leave or add to."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

# What would end a script element, or begin a comment; and what ends a line in scripts but not in JSON.
_SIGNS = "<>&\u2028\u2029"


def asset(package: str, *path: str) -> str:
    """Return the text of a file that a package carries."""
    return files(package).joinpath(*path).read_text(encoding="utf-8")


def joined_scripts(texts: Sequence[str]) -> str:
    """Return scripts as one, whose names nobody else sees."""
    return "(() => {\n'use strict';\n" + "\n".join(texts) + "\n})();\n"


def hash_source(text: str) -> str:
    """Return what allows an inline script or style in a Content-Security-Policy: its SHA-256."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy_attribute(policy: str) -> str:
    """Return a Content-Security-Policy as the value of an attribute; its quotes stay readable."""
    return html.escape(policy, quote=True).replace("&#x27;", "'")


def as_json(content: Any) -> str:
    """Return JSON that can stand in a script element: no text in it can end the element.

    Raises:
        ValueError: for NaN or an infinite number, which JSON has not.
    """
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign in _SIGNS:
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def json_element(name: str, text: str) -> str:
    """Return a script element of the id `name` that holds JSON."""
    return f'<script type="application/json" id="{name}">{text}</script>'


def filled(template: str, values: Mapping[str, str]) -> str:
    """Put values in the places `@@NAME@@` of a template, in one pass: no value is searched for another's mark."""
    pieces = template.split("@@")
    return "".join(values[piece] if i % 2 else piece for i, piece in enumerate(pieces))
