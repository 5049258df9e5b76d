"""What a replica tells about the requests it has open."""

import asyncio

import pytest
from tests.serve.conftest import LENGTH

from raylora.engine.sampling import Sampling


@pytest.mark.parametrize(("wanted", "answer"), [(10_000_000, LENGTH - 3), (5, 5)])
def test_open_tokens_are_no_more_than_the_context_holds(endpoint, wanted, answer):
    async def ask() -> None:
        lease = await endpoint.acquire("tiny")
        events = endpoint.generate([[67, 68, 69]], lease, Sampling(max_new_tokens=wanted), 2)
        await anext(events)
        assert endpoint.open_tokens == 2 * (3 + answer)
        await events.aclose()
        assert endpoint.open_tokens == 0

    asyncio.run(ask())
