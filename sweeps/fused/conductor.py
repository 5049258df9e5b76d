"""Lets the loops of several trials go forward together: K loops, one pass.

Each trial runs the ordinary training loop in a player. Where it needs a forward and backward pass
it waits until all others do, or are done, or wait for permission to go on; then one pass answers
them all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raylora.sweeps.fused.player import Asked, Ended, Player, Stopped
from raylora.sweeps.fused.shared_passes import PassRequest, SharedPasses


@dataclass(frozen=True)
class Permission:
    """What a trial asks for that has something to report; the answer is None."""

    report: Any


@dataclass(frozen=True)
class Finished:
    """A trial whose loop has ended."""

    name: str
    ended: Ended

    @property
    def was_stopped(self) -> bool:
        """Whether it was told to."""
        return isinstance(self.ended.error, Stopped)


class Conductor:
    """Trials join, wait, go on and end; the order in which they joined is the order of all."""

    def __init__(self, passes: SharedPasses) -> None:
        self._passes = passes
        self._players: dict[str, Player] = {}
        self._asked: dict[str, Any] = {}
        """What each player waits for; absent before its first turn."""

    @property
    def names(self) -> list[str]:
        """Of the trials that are in."""
        return list(self._players)

    @property
    def waiting(self) -> dict[str, Any]:
        """Reports of the trials that wait for permission."""
        asked = self._asked.items()
        return {name: a.report for name, a in asked if isinstance(a, Permission)}

    @property
    def runnable(self) -> list[str]:
        """Trials that a round takes further."""
        waiting = self.waiting
        return [name for name in self._players if name not in waiting]

    def join(self, name: str, play: Callable[[Player], Any]) -> None:
        """Take a trial in; it begins with the next round."""
        self._players[name] = Player(play)

    def permit(self, name: str) -> list[Finished]:
        """Let a waiting trial go on to its next request."""
        return self._resume(name, None)

    def stop(self, name: str) -> list[Finished]:
        """End a trial where it stands; it cleans up before this returns."""
        if name not in self._asked:  # it has not begun
            del self._players[name]
            return [Finished(name, Ended(error=Stopped()))]
        return self._resume(name, Stopped())

    def round(self) -> list[Finished]:
        """Let new trials begin, then answer everybody who needs a pass."""
        finished: list[Finished] = []
        for name in [name for name in self._players if name not in self._asked]:
            finished += self._resume(name, None)
        needing = {n: a for n, a in self._asked.items() if isinstance(a, PassRequest)}
        answers = self._passes.answer(list(needing.values()))
        for name, answer in zip(needing, answers, strict=True):
            finished += self._resume(name, answer)
        return finished

    def _resume(self, name: str, answer: Any) -> list[Finished]:
        match self._players[name].resume(answer):
            case Asked(request):
                self._asked[name] = request
                return []
            case Ended() as ended:
                del self._players[name]
                self._asked.pop(name, None)
                return [Finished(name, ended)]
