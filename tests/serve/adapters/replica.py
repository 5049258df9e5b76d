"""A replica's residency at work, for tests: run beside the loop that follows the registry."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from raylora.serve.adapters.residency import Residency
from raylora.serve.adapters.resident import AdapterState

POLL_S = 0.01


def followed(residency: Residency, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the work beside the loop that asks the registry."""

    async def both() -> None:
        following = asyncio.ensure_future(residency.follow())
        await work()
        following.cancel()

    asyncio.run(both())


async def soon(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


async def answered(residency: Residency, model: str) -> str:
    lease = await residency.acquire(model)
    lease.release()
    return lease.name


def state(residency: Residency, key: str) -> AdapterState | None:
    return next((each.state for each in residency.residents if each.key == key), None)


def served(residency: Residency, *models: str) -> list[str]:
    """What answers each model, asked one after another."""

    async def ask() -> list[str]:
        leases = []
        for model in models:
            lease = await residency.acquire(model)
            lease.release()
            leases.append(lease.name)
        return leases

    return asyncio.run(ask())
