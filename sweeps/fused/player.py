"""A function in a thread of its own that runs only while its conductor waits for it.

Of all players one runs at a time, in the order in which they are resumed. So they share a model,
torch's generators and the process group as if they were called one after the other, and workers
that resume the same players in the same order stay in step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any


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

    def __init__(self, name: str, play: Callable[["Player"], Any]) -> None:
        self._play = play
        self._asked: SimpleQueue[Asked | Ended] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def resume(self, answer: Any = None) -> Asked | Ended:
        """Answer what it asked, and wait until it asks again or ends.

        An exception as answer is raised where the player asked.
        """
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._answers.put(answer)
        asked = self._asked.get()
        if isinstance(asked, Ended):
            self._thread.join()
        return asked

    def ask(self, request: Any) -> Any:
        """From within the function: wait for an answer while others run."""
        self._asked.put(Asked(request))
        answer = self._answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self) -> None:
        try:
            ended = Ended(self._play(self))
        except BaseException as error:
            ended = Ended(error=error)
        self._asked.put(ended)
