"""Chunks of a log as lines, and how much of the log has passed."""

from collections.abc import Iterator


class Lines:
    """Joins chunks into lines; `characters` says from where to go on after a lost connection."""

    def __init__(self) -> None:
        self.characters = 0
        self._open = ""

    def feed(self, chunk: str) -> Iterator[str]:
        """Yield the lines this chunk completes, without their line ends."""
        self.characters += len(chunk)
        *whole, self._open = (self._open + chunk).split("\n")
        yield from whole

    def rest(self) -> Iterator[str]:
        """Yield a last line that has no end."""
        if self._open:
            yield self._open
        self._open = ""
