"""What the ingress and a replica say to each other: ASGI's messages as msgpack arrays on TCP.

    ingress -> replica   [id, OPEN, scope, body]    [id, GONE]
    replica -> ingress   [id, START, status, headers, bytes, more]    [id, BODY, bytes, more]
                         [id, BROKEN]    [0, STATE, load]

The first message of a connection is the replica's secret, which Ray has told the ingress.
"""

import asyncio
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, cast

import msgpack

MAX_FRAME = 16 << 20
"""Bytes; a request body has at most 10 MB."""
SCOPE_KEYS = ("method", "scheme", "path", "query_string", "headers", "client", "server")


class Word(IntEnum):
    """What a frame says."""

    OPEN = 1
    GONE = 2
    START = 3
    BODY = 4
    BROKEN = 5
    STATE = 6


class FrameProtocol(asyncio.Protocol):
    """One side of a connection: whole frames in, whole frames out."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=MAX_FRAME, use_list=False)
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        # uvloop's transports are of classes of their own.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio; what is no msgpack, or too large, ends the connection."""
        try:
            self._unpacker.feed(data)
            for frame in self._unpacker:
                self.received(frame)
        except (ValueError, TypeError, msgpack.UnpackException):
            self.close()

    def received(self, frame: Any) -> None:
        """One frame has come; of the subclass."""

    def send(self, *frame: Any) -> None:
        """Write a frame; nothing where the other side has gone."""
        self.say(frame)

    def say(self, message: Any) -> None:
        """As `send`, for what is no frame: the secret."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_packed(message))

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()


def portable(scope: Mapping[str, Any]) -> dict[str, Any]:
    """What of an ASGI scope travels."""
    return {key: scope.get(key) for key in SCOPE_KEYS}


def scope_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """The ASGI scope on the other side."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "root_path": "",
        "raw_path": told["path"].encode(),
        **told,
        "state": {},
    }


_packed = cast(Callable[[Any], bytes], msgpack.packb)
