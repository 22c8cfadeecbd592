"""Two hosts with a link between them, made of network namespaces: the link can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


def missing() -> str | None:
    """Return why no namespaces can be made here, or None."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "network namespaces need root, and the program ip"
    name = f"idd-try-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "this system makes no network namespaces"
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return None


@dataclass(frozen=True)
class Hosts:
    """Names of the two namespaces; the first has the address 10.77.0.1, the second 10.77.0.2."""

    names: tuple[str, str]

    @property
    def address(self) -> str:
        """Of the first."""
        return "10.77.0.1"

    def command(self, host: int, words: Sequence[str]) -> list[str]:
        """Return what runs a command on a host."""
        return ["ip", "netns", "exec", self.names[host], *words]

    def interface(self, host: int) -> str:
        """Return the name of a host's interface."""
        return f"idd{host}"

    def cut(self) -> None:
        """Take the link down: nothing arrives any more, and nobody is told."""
        _ip("-n", self.names[1], "link", "set", self.interface(1), "down")


@contextmanager
def hosts() -> Iterator[Hosts]:
    """Make two hosts, and remove them."""
    found = Hosts((f"idd-a-{os.getpid()}", f"idd-b-{os.getpid()}"))
    try:
        for name in found.names:
            _ip("netns", "add", name)
        _ip(
            "-n", found.names[0], "link", "add", "idd0", "type", "veth", "peer", "name", "idd1", "netns", found.names[1]
        )
        for host, name in enumerate(found.names):
            _ip("-n", name, "addr", "add", f"10.77.0.{host + 1}/24", "dev", found.interface(host))
            for device in ("lo", found.interface(host)):
                _ip("-n", name, "link", "set", device, "up")
        yield found
    finally:
        for name in found.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
