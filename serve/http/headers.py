"""Headers of an ASGI scope; asked for one by one that is cheaper than a mapping of them all."""

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> bytes:
    """The last one of this name, which is in lower case; empty without one."""
    return next((value for key, value in reversed(scope["headers"]) if key == name), b"")
