"""The engine on a thread of its own: requests from asyncio go in, events come back."""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

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
        """Generate a token for each running row."""
        ...


@dataclass(frozen=True)
class _Listener:
    loop: asyncio.AbstractEventLoop
    events: "asyncio.Queue[Event]"


class EngineThread:
    """Steps the engine while it has work and sleeps when it has none."""

    def __init__(self, engine: GenerationEngine) -> None:
        self._engine = engine
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._listeners: dict[str, _Listener] = {}
        self._stopping = False
        self._ended: str | None = None
        """Why nothing is worked on any more."""
        self.open_requests = 0
        """Requests that have been taken and have not ended."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether requests are still worked on."""
        return self._ended is None and self._thread.is_alive()

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
        self._thread.join()

    async def call(self, function: Callable[[], T]) -> T:
        """Run a function on the engine's thread, between two steps.

        Raises RayloraError where the engine has failed.
        """
        future: Future[T] = Future()
        self._inbox.put(lambda: self._settle(future, function))
        return await asyncio.wrap_future(future)

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Event, None]:
        """Events of these requests until all have ended; closing it early cancels the rest."""
        listener = _Listener(asyncio.get_running_loop(), asyncio.Queue())
        unfinished = {request.id for request in requests}
        self.open_requests += len(unfinished)
        for request in requests:
            self._inbox.put(lambda request=request: self._add(request, listener))
        try:
            while unfinished:
                event = await listener.events.get()
                if event.completion is not None:
                    unfinished.discard(event.id)
                    self.open_requests -= 1
                yield event
        finally:
            self.open_requests -= len(unfinished)
            for request_id in unfinished:
                self._inbox.put(lambda request_id=request_id: self._cancel(request_id))

    def _run(self) -> None:
        """After a failure it goes on to refuse what comes, until it is stopped."""
        while not self._stopping:
            try:
                self._take_messages()
                if self._ended is None and self._engine.has_work:
                    self._deliver(self._engine.step())
            except Exception as error:
                log.exception("the engine failed; its requests end here")
                self._end(f"the engine has failed: {error}")
        self._end("the engine has stopped")
        while not self._inbox.empty():
            self._inbox.get()()

    def _take_messages(self) -> None:
        """Act on what has come in; wait for something where there is nothing to generate."""
        if self._ended is not None or not self._engine.has_work:
            self._inbox.get()()
        while not self._inbox.empty():
            self._inbox.get()()

    def _end(self, reason: str) -> None:
        self._ended = self._ended or reason
        self._deliver([_failed(name, reason) for name in self._listeners])

    def _add(self, request: Request, listener: _Listener) -> None:
        self._listeners[request.id] = listener
        if self._ended is not None:
            self._deliver([_failed(request.id, self._ended)])
            return
        try:
            self._engine.add(request)
        except InvalidRequest as error:
            self._deliver([_failed(request.id, error.message)])
        except Exception as error:
            log.exception("request %s cannot be taken", request.id)
            self._deliver([_failed(request.id, str(error))])

    def _cancel(self, request_id: str) -> None:
        if self._listeners.pop(request_id, None) is not None:
            self._engine.cancel(request_id)

    def _deliver(self, events: Sequence[Event]) -> None:
        """Wake each event loop once, with all that is new for its listeners."""
        news: dict[asyncio.AbstractEventLoop, list[tuple[_Listener, Event]]] = {}
        for event in events:
            listener = self._listeners.get(event.id)
            if listener is None:
                continue
            if event.completion is not None:
                del self._listeners[event.id]
            news.setdefault(listener.loop, []).append((listener, event))
        for loop, told in news.items():
            # A closed loop has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_hand_over, told)

    def _settle(self, future: "Future[T]", function: Callable[[], T]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            if self._ended is not None:
                raise RayloraError(self._ended)
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)


def _hand_over(told: Sequence[tuple[_Listener, Event]]) -> None:
    for listener, event in told:
        listener.events.put_nowait(event)


def _failed(request_id: str, error: str) -> Event:
    completion = Completion(request_id, "", (), FinishReason.ERROR, prompt_tokens=0, error=error)
    return Event(request_id, "", completion)
