"""The engine on a thread of its own: requests from asyncio go in, events come back."""

import asyncio
import logging
import queue
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from raylora.engine.request import Completion, Event, FinishReason, Request
from raylora.engine.stats import EngineStats
from raylora.errors import InvalidRequest, RayloraError

log = logging.getLogger(__name__)
T = TypeVar("T")

STATS_S = 2.0
"""A step that takes longer is not waited for; Prometheus gives up after 10 s."""


class GenerationEngine(Protocol):
    """What raylora.engine.generator.Engine does; the seam for tests."""

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        ...

    @property
    def stats(self) -> EngineStats:
        """A snapshot for metrics."""
        ...

    def add(self, request: Request) -> None:
        """Queue a request."""
        ...

    def cancel(self, request_id: str) -> None:
        """Drop a request at the next step."""
        ...

    def step(self) -> list[Event]:
        """Let rows join, or generate a token for each running row."""
        ...


@dataclass(frozen=True)
class _Listener:
    loop: asyncio.AbstractEventLoop
    events: "asyncio.Queue[Event]"


class EngineThread:
    """Steps the engine while it has work and sleeps when it has none.

    Once it has failed, or one step hangs, nothing is worked on any more: what is open ends with
    the reason, and so does at once what comes. A thread cannot be ended from outside: one that
    hangs is left behind, and its process is to be replaced.
    """

    def __init__(self, engine: GenerationEngine, *, step_timeout_s: float) -> None:
        """A step, or a call between two, that lasts longer is taken to hang."""
        self._engine = engine
        self._step_timeout_s = step_timeout_s
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._listeners: dict[str, _Listener] = {}
        self._calls: set[Future[Any]] = set()
        self._stopping = False
        self._busy_since: float | None = None
        """When what the thread does now began; None while it waits for something to do."""
        self._ended = threading.Event()
        self.failure: str | None = None
        """Why requests are not worked on any more; None while they are."""
        self.open_requests = 0
        """Requests that have been taken and have not ended."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()

    async def stats(self) -> EngineStats | None:
        """As the engine says between two steps; None where it has failed or a step hangs."""
        try:
            async with asyncio.timeout(STATS_S):
                return await self.call(lambda: self._engine.stats)
        except (RayloraError, TimeoutError):
            return None

    def stop(self) -> None:
        """End after the step that is running; open requests end as failed."""
        self._stopping = True
        self._inbox.put(lambda: None)
        self._ended.wait()

    async def call(self, function: Callable[[], T]) -> T:
        """Run a function on the engine's thread, between two steps.

        Raises RayloraError where the engine has failed.
        """
        future: Future[T] = Future()
        self._calls.add(future)
        try:
            self._inbox.put(partial(_settle, future, function))
            # Only now: what ended in between has not seen the call.
            if self.failure is not None:
                _refuse(future, self.failure)
            return await asyncio.wrap_future(future)
        finally:
            self._calls.discard(future)

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Event, None]:
        """Events of these requests until all have ended; closing it early cancels the rest."""
        listener = _Listener(asyncio.get_running_loop(), asyncio.Queue())
        unfinished = {request.id for request in requests}
        self.open_requests += len(unfinished)
        for request in requests:
            self._listeners[request.id] = listener
            self._inbox.put(partial(self._add, request))
        try:
            # Only now: what ended in between has not seen these requests.
            if self.failure is not None:
                self._fail(unfinished, self.failure)
            while unfinished:
                event = await listener.events.get()
                if event.completion is not None:
                    unfinished.discard(event.id)
                    self.open_requests -= 1
                yield event
        finally:
            self.open_requests -= len(unfinished)
            for request_id in unfinished:
                self._inbox.put(partial(self._cancel, request_id))

    def _run(self) -> None:
        try:
            while not self._stopping and self.failure is None:
                self._take_messages()
                if self._engine.has_work:
                    self._busy_since = time.monotonic()
                    self._deliver(self._engine.step())
        except Exception as error:
            log.exception("the engine failed; its requests end here")
            self._end(f"the engine has failed: {error}")
        self._end("the engine has stopped")

    def _take_messages(self) -> None:
        """Act on what has come in; wait for something where there is nothing to generate."""
        if not self._engine.has_work:
            self._busy_since = None
            message = self._inbox.get()
            self._busy_since = time.monotonic()
            message()
        while self.failure is None and not self._inbox.empty():
            self._busy_since = time.monotonic()
            self._inbox.get()()

    def _watch(self) -> None:
        """End everything where the engine's thread does one thing for too long."""
        while not self._ended.wait(self._time_left()):
            if self._time_left() <= 0:
                log.error("the engine hangs; its requests end here. It is at\n%s", self._place())
                self._end(f"the engine hangs: a step has lasted over {self._step_timeout_s:g} s")

    def _time_left(self) -> float:
        """Until what the thread does now is over its limit; what begins later is so later."""
        since = self._busy_since
        spent = 0.0 if since is None else time.monotonic() - since
        return max(0.0, self._step_timeout_s - spent)

    def _place(self) -> str:
        # Private by its name alone: the documentation of sys has it, for what hangs.
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        frame = frames.get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)).rstrip()

    def _end(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._fail(list(self._listeners), self.failure)
        for future in list(self._calls):
            _refuse(future, self.failure)
        self._ended.set()

    def _fail(self, request_ids: Iterable[str], reason: str) -> None:
        self._deliver([_failed(request_id, reason) for request_id in request_ids])

    def _add(self, request: Request) -> None:
        try:
            self._engine.add(request)
        except InvalidRequest as error:
            self._fail([request.id], error.message)
        except Exception as error:
            log.exception("request %s cannot be taken", request.id)
            self._fail([request.id], str(error))

    def _cancel(self, request_id: str) -> None:
        if self._listeners.pop(request_id, None) is not None:
            self._engine.cancel(request_id)

    def _deliver(self, events: Sequence[Event]) -> None:
        """Wake each event loop once, with all that is new for its listeners."""
        news: dict[asyncio.AbstractEventLoop, list[tuple[_Listener, Event]]] = {}
        for event in events:
            # The last event goes to whoever takes the listener out: a step that comes back after
            # all has ended finds none.
            find = self._listeners.get if event.completion is None else self._listeners.pop
            listener = find(event.id, None)
            if listener is None:
                continue
            news.setdefault(listener.loop, []).append((listener, event))
        for loop, told in news.items():
            # A closed loop has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_hand_over, told)


def _settle(future: "Future[T]", function: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    # One that hangs is refused while it runs, and may come back after all.
    with suppress(InvalidStateError):
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)


def _refuse(future: "Future[Any]", reason: str) -> None:
    with suppress(InvalidStateError):
        future.set_exception(RayloraError(reason))


def _hand_over(told: Sequence[tuple[_Listener, Event]]) -> None:
    for listener, event in told:
        listener.events.put_nowait(event)


def _failed(request_id: str, error: str) -> Event:
    completion = Completion(request_id, "", (), FinishReason.ERROR, prompt_tokens=0, error=error)
    return Event(request_id, "", completion)
