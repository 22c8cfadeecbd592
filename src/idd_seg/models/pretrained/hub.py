"""Published weights: from the local cache, or from a hub that is asked briefly first."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Sequence
from urllib.parse import urlsplit

FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which they are looked for


def cached(repository: str, files: Sequence[str] = FILES) -> str | None:
    """Return the path of the first of the files that the local cache has, or None."""
    from huggingface_hub import try_to_load_from_cache

    for file in files:
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return found
    return None


def download(repository: str, files: Sequence[str] = FILES) -> str | None:
    """Fetch the first of the files that the repository has into the cache; None if it has none or can't be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for file in files:
        try:
            return hf_hub_download(repository, file)
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
            continue
    return None


def answers(seconds: float = 1.5) -> bool:
    """Tell whether the hub (or the proxy in front of it) takes a connection: its own client would retry for 47 s."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    url = urlsplit(constants.ENDPOINT)
    proxy = urllib.request.getproxies().get(url.scheme)
    if proxy and not urllib.request.proxy_bypass(url.hostname or ""):
        url = urlsplit(proxy)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        with socket.create_connection((url.hostname or "", port), timeout=seconds):
            return True
    except OSError:
        return False
