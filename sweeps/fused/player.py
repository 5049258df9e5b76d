"""A function that runs only while its conductor waits for it, and asks it things on the way.

Players take turns in their conductor's thread (greenlets), in the order in which they are resumed.
So they share a model, torch's generators and the process group as if they were called one after
the other, and workers that resume the same players in the same order stay in step. In threads of
their own each would have OpenMP threads of its own besides, which get in each other's way: a pass
of eight trials of 64 tokens on two cores took 2.05 s so, and 0.83 s in one thread.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from greenlet import getcurrent, greenlet


class Stopped(BaseException):
    """Raised in a player that is to end where it stands; not an Exception: nothing handles it."""


@dataclass(frozen=True)
class Asked:
    """The player waits for an answer."""

    request: Any


@dataclass(frozen=True)
class Ended:
    """The function has returned, or has raised."""

    result: Any = None
    error: BaseException | None = None


class Player:
    """Starts with the first resume."""

    def __init__(self, play: Callable[["Player"], Any]) -> None:
        self._play = play
        self._turn = greenlet(self._run)

    def resume(self, answer: Any = None) -> Asked | Ended:
        """Answer what it asked, and wait until it asks again or ends. Always in one thread.

        An exception as answer is raised where the player asked.
        """
        self._turn.parent = getcurrent()
        return self._turn.switch(answer)

    def ask(self, request: Any) -> Any:
        """From within the function: wait for an answer while others run."""
        conductor: Any = self._turn.parent
        answer = conductor.switch(Asked(request))
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self, answer: None) -> Ended:
        """Nothing was asked before the first answer."""
        try:
            return Ended(self._play(self))
        except BaseException as error:
            return Ended(error=error)
