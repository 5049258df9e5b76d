"""Token ids to text, piece by piece: whole characters only, and nothing of a stop string."""

from collections.abc import Sequence
from typing import Protocol

REPLACEMENT = "\ufffd"


class Decoder(Protocol):
    """The part of a tokenizer that turns ids into text."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """Text of the ids."""
        ...


class TextStream:
    """The text of one growing row.

    Pieces joined are the text of all tokens decoded at once, save a character that was never
    finished. A few tokens are decoded again at each push, since what a token reads as can depend
    on its left neighbour.
    """

    def __init__(self, decoder: Decoder, stop: Sequence[str] = ()) -> None:
        self._decode = decoder.decode
        self._stop = tuple(stop)
        self._window: list[int] = []
        self._told = ""
        """Text of the window that has been passed on."""
        self._held = ""
        """Text kept back because it may be the beginning of a stop string."""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token; return the text that is now certain."""
        self._window.append(token)
        text = self._decode(self._window, skip_special_tokens=True)
        if text.endswith(REPLACEMENT):
            return ""
        fresh = text[len(self._told) :]
        self._slide(text)
        return self._screen(fresh)

    def finish(self) -> str:
        """Return what was held back, once no more tokens come."""
        if self.stopped:
            return ""
        text = self._decode(self._window, skip_special_tokens=True).rstrip(REPLACEMENT)
        rest = self._screen(text[len(self._told) :])
        if self.stopped:
            return rest
        return rest + self._held

    def _slide(self, text: str) -> None:
        """Keep the last tokens as left context and forget those before."""
        self._told = text
        if len(self._window) > _WINDOW:
            self._window = self._window[-_CONTEXT:]
            self._told = self._decode(self._window, skip_special_tokens=True)

    def _screen(self, fresh: str) -> str:
        """Pass text on up to a stop string, or up to what may become one."""
        if not self._stop:
            return fresh
        text = self._held + fresh
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


_CONTEXT = 6
"""Tokens decoded with a new one. Six cover a four-byte character split over single bytes."""
_WINDOW = 16


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of text that is a beginning of stop, stop itself excluded."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
