"""Asking a web server for a file or the rest of one: http and https alone, and every failure has a name."""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from idd_seg.errors import DataError

SCHEMES = ("http", "https")
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be another one a little later


class DroppedError(Exception):
    """The connection failed in a way that may pass."""


def require_http(url: str) -> None:
    """Raise a DataError unless `url` is a whole address of a web server."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in SCHEMES and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        right = False
    if not right:
        raise DataError(f"'{url}' is no address to download from; it must begin with http:// or https://")


def ask(url: str, start: int, version: str | None, timeout: float) -> Any:
    """Ask for a file from byte `start` on; return the answer, which is 200, 206, or 416.

    The rest of a file is asked for on the condition that it is still `version`; of another version the server sends
    the whole.

    Raises:
        DroppedError: if another attempt may help.
        DataError: if none will.
    """
    headers = {"User-Agent": "idd-seg", "Accept-Encoding": "identity"}
    if start and version:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    try:
        answer = _opener().open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error
        error.close()
        if error.code in PASSING:
            raise DroppedError(f"the server answers {error.code} {error.reason}") from error
        raise DataError(f"{url}: the server answers {error.code} {' '.join(str(error.reason).split())}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _failure(url, error) from error
    if answer.status not in (200, 206):
        answer.close()
        raise DataError(f"{url}: the server answers {answer.status} {answer.reason}, and sends no file")
    if answer.headers.get_content_type() == "text/html":
        answer.close()
        raise DataError(f"{url}: the server sends a web page in place of the file")
    return answer


def read(url: str, answer: Any, size: int) -> bytes:
    """Return the bytes that have come, at most `size`; none at the end.

    Raises:
        DroppedError, DataError: as `ask`.
    """
    try:
        chunk: bytes = answer.read1(size)
    except (OSError, http.client.HTTPException) as error:
        raise _failure(url, error) from error
    return chunk


def _failure(url: str, error: Exception) -> Exception:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DataError(f"{url}: the server's certificate is refused ({reason.verify_message})")
    return DroppedError(f"the connection failed ({str(reason) or type(reason).__name__})")


def version_of(headers: Any) -> str | None:
    """Return the strong mark of a version, which a request for the rest of it may name."""
    etag = headers.get("ETag")
    if etag is not None and not etag.startswith("W/"):
        return str(etag)
    date = headers.get("Last-Modified")
    return None if date is None else str(date)


def range_of(headers: Any) -> tuple[int | None, int | None]:
    """Return where the bytes of an answer begin, and the length of the whole file; None for what is not said."""
    found = re.fullmatch(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18})", headers.get("Content-Range", ""))
    if found is None:
        return None, None
    return None if found[1] is None else int(found[1]), int(found[2])


def length_of(headers: Any) -> int | None:
    """Return the number of bytes that an answer will have, if it says so."""
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            require_http(newurl)
        except DataError as error:
            raise DataError(f"{req.full_url}: the server leads on, and {error}") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Make an opener that has no handler for files or any other scheme, whatever a server says."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener
