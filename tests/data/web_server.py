"""A web server on this machine that misbehaves on purpose."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Site:
    """What the server sends, and what it was asked.

    Attributes:
        content: of the one file there is.
        ranges: whether it sends the rest of a file.
        drops: after how many bytes the connection ends, for the first answers.
        statuses: of the first answers that are errors.
        etag: of the version; None sends none.
        length: what `Content-Length` says; None is the truth, 0 says nothing.
        redirect: where it leads on to.
        conditions: whether it looks at `If-Range`.
        kind: `Content-Type`.
        asked: the headers of every request.
    """

    content: bytes
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    etag: str | None = '"1"'
    length: int | None = None
    redirect: str | None = None
    conditions: bool = True
    kind: str = "application/octet-stream"
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    before: Callable[[], None] = lambda: None

    @property
    def starts(self) -> list[int]:
        """Where each request asked the file to begin."""
        return [int(re.sub(r"bytes=(\d+)-", r"\1", headers.get("Range", "bytes=0-"))) for headers in self.asked]


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Run a server for a site; its address is `site.url`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(dict(self.headers))
            site.before()
            if site.redirect is not None and self.path != "/there":
                self.send_response(302)
                self.send_header("Location", site.redirect)
                self.end_headers()
                return
            if site.statuses and (status := site.statuses.pop(0)) != 200:
                self.send_error(status)
                return
            self.send_file()

        def send_file(self) -> None:
            start, whole = site.starts[-1], len(site.content)
            same = not site.conditions or self.headers.get("If-Range") == site.etag
            rest = bool(start) and site.ranges and same
            if rest and start >= whole:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{whole}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = site.content[start:] if rest else site.content
            self.send_response(206 if rest else 200)
            self.send_header("Content-Type", site.kind)
            if rest:
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            if site.etag is not None:
                self.send_header("ETag", site.etag)
            if site.length != 0:
                self.send_header("Content-Length", str(site.length or len(body)))
            self.end_headers()
            self.wfile.write(body[: site.drops.pop(0)] if site.drops else body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing when a client goes before the end."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/data.zip"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
