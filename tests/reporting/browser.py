"""A headless Chromium for the tests of the page; it must ask for nothing but the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@dataclass
class Heard:
    """What a page has said or asked for."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def chromium() -> str:
    """Return the browser's path, or skip the test and say why."""
    pytest.importorskip("playwright", reason="the page is NOT tested: pip install playwright")
    path = os.environ.get("IDD_SEG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("the page is NOT tested: no chromium; install Debian's, or name one by IDD_SEG_CHROMIUM")
    return path


@contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium, and end it."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(started: Any, path: Path, **options: Any) -> Iterator[tuple[Any, Heard]]:
    """Open a page from its file; afterwards there was no error, and no request but for the file and its data."""
    context = started.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page, heard = context.new_page(), Heard()
    page.on("console", lambda m: heard.errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: heard.errors.append(str(e)))
    page.on("request", lambda r: heard.requests.append(r.url))
    try:
        page.goto(path.as_uri())
        yield page, heard
        assert heard.errors == []
        assert [url for url in heard.requests if not url.startswith("data:")] == [path.as_uri()]
    finally:
        context.close()


def show_all(page: Any) -> None:
    """Scroll through the page, so that every section is drawn."""
    for name in ("runs", "curves", "classes", "options", "matrices", "pictures", "cases"):
        page.locator(f"#{name}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#{name} .body > *")
