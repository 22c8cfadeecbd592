"""A headless Chromium for the tests of pages; they must ask for nothing but what lies beside them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
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
def browser(*flags: str) -> Iterator[Any]:
    """Start Chromium, with more flags than the usual ones, and end it."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(started: Any, address: Path | str, **options: Any) -> Iterator[tuple[Any, Heard]]:
    """Open a page; afterwards there was no error, and no request but for what the address begins.

    Args:
        address: of a file, which may ask for nothing but itself, or of a folder that is served, ending in `/`.
    """
    context = started.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page, heard = context.new_page(), Heard()
    page.on("console", lambda m: heard.errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: heard.errors.append(str(e)))
    context.on("request", lambda r: heard.requests.append(r.url))
    url = address.as_uri() if isinstance(address, Path) else address
    try:
        page.goto(url)
        yield page, heard
        assert heard.errors == []
        asked = [request for request in heard.requests if not request.startswith(("data:", "blob:"))]
        assert asked[0] == url
        assert all(request.startswith(url) for request in asked)
        assert isinstance(address, str) or asked == [url]
    finally:
        context.close()


class Quiet(SimpleHTTPRequestHandler):
    """What `python -m http.server` answers with, without a line for each request."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as `python -m http.server` does, and yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
