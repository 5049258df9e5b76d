"""Ray's JobSubmissionClient with what it lacks: time limits, our errors, and no ambient address.

Importing this module imports ray, so `jobs` does it only when a client is made.
"""

import asyncio
import codecs
import contextlib
import io
import logging
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn

import httpx
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from raylora.cluster import events
from raylora.cluster.connect import Cluster
from raylora.cluster.transport import READ_S, request, stream
from raylora.errors import NotAuthorised, NotFound, RayloraError

SLOW_READ_S = 60.0
"""For a submission (the head may first start its job agent, or 50 MB be on a slow line) and for a
whole log, which the head fetches from the node that has it."""
SILENCE_S = 1.0
"""A job may be silent for long; after this long the head is asked whether it still runs."""
LOG_S = 0.2
"""How often the node that has a log looks for new lines."""


class LimitedClient(JobSubmissionClient):
    """Talks to exactly this cluster, or raises an error of ours within the limits."""

    def __init__(self, cluster: Cluster) -> None:
        _quiet()
        try:
            with _no_ambient_address():
                super().__init__(cluster.dashboard_url, headers=dict(cluster.headers))
        except AuthenticationError as error:
            raise NotAuthorised(str(error)) from error

    def tail(self, job_id: str, *, skip: int) -> Iterator[str]:
        """Yield a job's log in chunks, without its first `skip` characters, until it ends.

        Ends early where there is no log yet. Each connection begins with the first character, so a
        second one has to skip. Raises Unreachable where the connection is lost or the head does
        not answer any more.
        """
        node = self.get_job_info(job_id).driver_node_id
        if node is None:
            return
        # A loop of our own, run step by step, makes an iterator of an asynchronous one.
        loop = asyncio.new_event_loop()
        chunks = self._stream_log(job_id, node)
        pending: asyncio.Task[str | None] | None = None
        patience = SILENCE_S
        try:
            while True:
                pending = pending or loop.create_task(_next(chunks))
                loop.run_until_complete(asyncio.wait({pending}, timeout=patience))
                if not pending.done():
                    # Raises where the head is gone; a job that has ended says nothing more.
                    if self.get_job_info(job_id).status.is_terminal():
                        return
                    continue
                chunk, pending = pending.result(), None
                if chunk is None:
                    return
                # After its last event a job ends within a few tenths of a second.
                patience = LOG_S if events.is_over(chunk) else SILENCE_S
                fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                if fresh:
                    yield fresh
        finally:
            if pending is not None:
                pending.cancel()
                loop.run_until_complete(asyncio.wait({pending}))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _stream_log(self, job_id: str, node: str) -> AsyncIterator[str]:
        """Follow the log as Ray's state API does: `ray job logs -f` is 1 to 3 s behind."""
        url = f"{self._address}/api/v0/logs/stream"
        query = {"submission_id": job_id, "node_id": node, "lines": "-1", "interval": str(LOG_S)}
        # Line ends as in get_job_logs: both count the same characters.
        decoder = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder("utf-8")("replace"), translate=True
        )
        async for piece in stream(url, headers=self._headers or {}, query=query):
            yield decoder.decode(piece)

    def _do_request(
        self,
        method: str,
        endpoint: str,
        *,
        data: bytes | None = None,
        json_data: dict[str, Any] | None = None,
        **_: Any,
    ) -> httpx.Response:
        return request(
            method,
            self._address + endpoint,
            headers=self._headers,
            content=data,
            body=json_data,
            read_s=SLOW_READ_S if method != "GET" or endpoint.endswith("/logs") else READ_S,
        )

    def _raise_error(self, r: httpx.Response) -> NoReturn:
        if r.status_code == 404:
            raise NotFound(r.text.strip(), hint="raylora jobs list")
        # Ray answers with a whole traceback; its last line says what happened.
        lines = r.text.strip().splitlines() or ["no text"]
        raise RayloraError(f"the Ray dashboard answered {r.status_code}: {lines[-1]}")


async def _next(chunks: AsyncIterator[str]) -> str | None:
    return await anext(chunks, None)


def _quiet() -> None:
    """Ray tells on stderr of each package it uploads and of each log that ends."""
    for name in (
        "ray.dashboard.modules.dashboard_sdk",
        "ray.dashboard.modules.job.sdk",
        "ray._private.runtime_env.packaging",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def _no_ambient_address() -> Iterator[None]:
    """RAY_ADDRESS and RAY_API_SERVER_ADDRESS would silently win over the address we give."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    saved = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)
