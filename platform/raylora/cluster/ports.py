"""Addresses that are free on this machine."""

import random
import socket
import sys

LOOPBACK = "127.0.0.1"
FIRST, LAST = 20000, 31999
"""Below the range (32768 up on Linux, 49152 up on macOS) from which outgoing connections take
theirs, so that a port found free is not taken by one of them before Ray listens on it."""


def free_ports(count: int) -> list[int]:
    """Return `count` different TCP ports on which nothing listens, on any interface."""
    found: list[int] = []
    # Drawn, not counted up: two heads that start at once would both take the first free one.
    for port in random.SystemRandom().sample(range(FIRST, LAST + 1), LAST + 1 - FIRST):
        if len(found) == count:
            break
        if is_free(port):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    """Whether nothing listens on the TCP port, on any interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def node_address() -> str:
    """Return the address the local node advertises.

    Ray replaces 127.0.0.1 by the network card's address (and the whole network could then reach
    the node by it), but keeps 127.0.0.2, which Linux always answers on. On macOS only 127.0.0.1
    exists and Ray keeps it.
    """
    return "127.0.0.2" if sys.platform == "linux" else LOOPBACK
