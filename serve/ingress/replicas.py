"""The replicas that the ingress knows: found through Ray, chosen for requests, lost and found."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from raylora.serve.ingress.balancing import choose
from raylora.serve.ingress.link import Address, Link, connect

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""A new replica is found after this long at most."""
HURRY_S = 0.1
"""While there is none, or one was lost."""
AGAIN_S = 5.0
"""A call for a replica is repeated: one that was about to stop may have answered it."""


class Replicas:
    """Links to all replicas that Ray Serve runs."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Sequence[Address]]],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`look` asks Ray for the addresses; `wake` for a replica where it has started none."""
        self._look = look
        self._wake = wake
        self._links: dict[str, Link] = {}
        self._changed = asyncio.Event()
        self._in_hurry = asyncio.Event()

    @property
    def links(self) -> list[Link]:
        """Of the replicas that are there."""
        return list(self._links.values())

    async def run(self) -> None:
        """Look for replicas until cancelled."""
        while True:
            try:
                for address in await self._look():
                    if address.id not in self._links:
                        self._links[address.id] = await connect(address, self._lost)
                        log.info("replica %s is connected", address.id)
                        self._changed.set()
            except Exception as error:
                # Ray's errors have many classes, and the next look may succeed.
                log.warning("looking for replicas failed: %s", error)
            await self._pause()

    async def pick(self, model: Callable[[], str], limit_s: float) -> Link | None:
        """A replica for a request; None where all there are have too much to do.

        model: what it asks for, which is looked up only where there is a choice. Raises
        TimeoutError as `present` does.
        """
        links = await self.present(limit_s)
        if len(links) == 1:
            return links[0] if links[0].candidate.takes_more else None
        chosen = choose([link.candidate for link in links], model())
        return None if chosen is None else self._links[chosen.id]

    async def present(self, limit_s: float) -> list[Link]:
        """The replicas that take requests, the least busy one first.

        Where there is none at all one is asked for and waited for. Raises TimeoutError.
        """
        if not self._usable():
            async with asyncio.timeout(limit_s):
                while not self._usable():
                    self._changed.clear()
                    self._in_hurry.set()
                    self._wake()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), AGAIN_S)
        return sorted(self._usable(), key=lambda link: link.candidate.open)

    def _usable(self) -> list[Link]:
        return [link for link in self._links.values() if not link.candidate.draining]

    def _lost(self, link: Link) -> None:
        if self._links.get(link.address.id) is link:
            del self._links[link.address.id]
            log.warning("replica %s is gone", link.address.id)
        self._in_hurry.set()

    async def _pause(self) -> None:
        if not self._links:
            await asyncio.sleep(HURRY_S)
            return
        try:
            await asyncio.wait_for(self._in_hurry.wait(), LOOK_S)
        except TimeoutError:
            return
        self._in_hurry.clear()
        await asyncio.sleep(HURRY_S)
