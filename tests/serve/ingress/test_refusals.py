"""What the ingress refuses itself is in /metrics, beside what the replicas count."""

import asyncio

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.serve.ingress.backends import BODY, Backend, ingress, run

CHAT = "/v1/chat/completions"


async def counted(client: httpx.AsyncClient) -> dict[tuple[str, str, str], float]:
    """(name, replica, status) -> value."""
    text = (await client.get("/metrics")).text
    return {
        (sample.name, sample.labels["replica"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_a_full_queue_is_counted_and_an_answer_is_for_the_replica_to_count():
    async def work() -> None:
        one = Backend("one", limit=1)
        one.go_on.clear()
        async with ingress(one) as (client, _):
            asked = asyncio.ensure_future(client.post("/whole", json=BODY))
            await one.begun.wait()
            for path in (CHAT, CHAT, "/v1/adapters/home"):
                assert (await client.post(path, json=BODY)).status_code == 429
            one.go_on.set()
            assert (await asked).status_code == 200
            found = await counted(client)
            assert found["raylora_requests_total", "one", "200"] == 3
            assert found["raylora_requests_total", "ingress", "429"] == 2
            assert found["raylora_refused_total", "ingress", "429"] == 3
            assert not any(status == "200" for _, by, status in found if by == "ingress")

    run(work)


def test_a_body_that_is_too_large_is_counted():
    async def work() -> None:
        async with ingress(Backend("one")) as (client, _):
            assert (await client.post(CHAT, content=b"x" * 10_000_000)).status_code == 413
            found = await counted(client)
            assert found["raylora_requests_total", "ingress", "413"] == 1

    run(work)
