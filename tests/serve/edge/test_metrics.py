"""/metrics, as Prometheus' own parser reads it."""

import asyncio
from asyncio import run
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.serve.edge_client import EdgeClient

from raylora.engine.request import Completion, Event, FinishReason
from raylora.engine.sampling import Sampling
from raylora.errors import InvalidAdapter
from raylora.serve import engine_thread
from raylora.serve.edge.edge import Edge
from raylora.serve.edge.metrics import IDLE_S, OTHER, Level, Metrics
from raylora.serve.edge.request_record import RequestRecord
from raylora.serve.edge.watched_slots import WatchedSlots
from raylora.serve.ingress.metrics_text import merged


@pytest.fixture
def edge() -> Edge:
    return Edge()


@pytest.fixture
def client(endpoint, edge) -> EdgeClient:
    return EdgeClient(endpoint, edge)


def samples(text: str) -> dict[tuple, float]:
    """(name, its labels' values in the order of the labels' names) -> value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def adapter_samples(text: str) -> list:
    families = text_string_to_metric_families(text)
    return [s for family in families for s in family.samples if "adapter" in s.labels]


def test_answers_are_counted_by_version_and_status(client):
    used = client.chat("home").json()["usage"]
    assert client.chat("home", stream=True, max_tokens=3).is_success
    client.chat("nobody")
    client.chat("tiny", n=0)
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.text)
    assert found["raylora_requests_total", "home@2", "200"] == 2
    assert found["raylora_requests_total", "", "404"] == 1
    assert found["raylora_requests_total", "", "400"] == 1
    prompts = found["raylora_prompt_tokens_total", "home@2"]
    assert prompts == 2 * used["prompt_tokens"]
    assert found["raylora_completion_tokens_total", "home@2"] == used["completion_tokens"] + 3
    for series in ("time_to_first_token", "time_per_output_token", "request"):
        assert found[f"raylora_{series}_seconds_count", "home@2"] == 2
    assert found["raylora_requests_running",] == found["raylora_requests_waiting",] == 0
    assert found["raylora_adapters", "ready"] == 1
    assert "nobody" not in answer.text


def test_times_are_those_of_the_tokens(client, engine):
    engine.step_seconds = 0.02
    client.chat("tiny", max_tokens=6)
    found = samples(client.get("/metrics").text)
    first, token, whole = (
        found[f"raylora_{series}_seconds_sum", "tiny"]
        for series in ("time_to_first_token", "time_per_output_token", "request")
    )
    # Six steps of 20 ms or more: the first token after one, then five.
    assert first >= 0.02
    assert token >= 0.018
    assert 0.12 <= first + 5 * token <= whole


def test_an_answer_that_breaks_counts_as_the_error_that_it_is(client, engine):
    engine.fails_after = 4
    assert client.chat("home", stream=True).status_code == 200
    assert samples(client.get("/metrics").text)["raylora_requests_total", "home@2", "500"] == 1


ENGINE = {
    "raylora_engine_prefilling": 2,
    "raylora_engine_kv_bytes": 9000,
    "raylora_engine_kv_prefix_bytes": 1000,
    "raylora_engine_kv_budget_bytes": 10_000,
    "raylora_engine_steps_total": 40,
    "raylora_engine_prefilled_tokens_total": 50,
    "raylora_engine_reused_tokens_total": 60,
    "raylora_engine_decoded_tokens_total": 80,
}


def engine_samples(client) -> dict[str, float]:
    found = samples(client.get("/metrics").text)
    return {name: value for (name, *_), value in found.items() if "_engine_" in name}


def test_the_engine_tells_what_it_did_and_holds(client, engine):
    assert engine_samples(client) == ENGINE
    assert "# TYPE raylora_engine_steps_total counter" in client.get("/metrics").text
    engine.stats = replace(engine.stats, kv_budget=None)
    assert "raylora_engine_kv_budget_bytes" not in engine_samples(client)


def test_without_an_engine_of_its_own_a_replica_has_no_series_of_it(client, endpoint, monkeypatch):
    async def nothing() -> None:
        return None

    monkeypatch.setattr(endpoint.engine, "stats", nothing)
    assert engine_samples(client) == {}
    assert "raylora_requests_running" in client.get("/metrics").text


def test_an_engine_that_failed_or_hangs_does_not_keep_the_other_series(
    client, engine, endpoint, monkeypatch
):
    monkeypatch.setattr(engine_thread, "STATS_S", 0.1)
    engine.may_step.clear()

    async def asked() -> None:
        lease = await endpoint.acquire("tiny")
        events = endpoint.generate([[67]], lease, Sampling(max_new_tokens=5))
        first = asyncio.ensure_future(anext(events))
        while not engine.has_work:
            await asyncio.sleep(0.01)
        found = samples((await client.fetch("/metrics")).text)
        assert found["raylora_requests_running",] == 1
        assert not [name for name, *_ in found if "_engine_" in name]
        engine.may_step.set()
        await first
        await events.aclose()

    run(asked())
    assert engine_samples(client) == ENGINE
    endpoint.engine.stop()
    assert engine_samples(client) == {}


def record(adapter: str) -> RequestRecord:
    made = RequestRecord("id", "POST", "/v1/completions", answered_by=adapter, sent_status=200)
    made.saw(0, Event("x", "a"))
    made.saw(0, Event("x", "b", Completion("x", "ab", (1, 2), FinishReason.STOP, 3)))
    return made


def test_series_are_bounded_whatever_is_asked():
    now = [0.0]
    metrics = Metrics(limit=3, clock=lambda: now[0])
    for number in range(1000):
        metrics.tell(record(f"a@{number}"))
        metrics.evicted(f"a@{number}")
    text = metrics.text()
    labels = {each.labels["adapter"] for each in adapter_samples(text)}
    assert labels == {"a@0", "a@1", "a@2", OTHER}
    assert samples(metrics.text())["raylora_requests_total", OTHER, "200"] == 997

    now[0] += IDLE_S / 2
    metrics.tell(record("a@1"))
    now[0] += IDLE_S / 2 + 1
    metrics.tell(record("a@999"))
    found = samples(metrics.text())
    assert found["raylora_requests_total", "a@999", "200"] == 1
    assert found["raylora_requests_total", "a@1", "200"] == 2
    assert ("raylora_requests_total", "a@0", "200") not in found
    assert ("raylora_adapter_evictions_total", "a@0") not in found


async def no_room(size: int) -> None:
    pass


def test_loads_and_evictions_of_the_bank(slots, tmp_path):
    metrics = Metrics()
    watched = WatchedSlots(slots, metrics)
    run(watched.add("home@2", tmp_path, no_room))
    run(watched.remove("home@2"))

    async def refuse(key, directory, make_room, **options):
        raise InvalidAdapter("no")

    slots.add = refuse
    with pytest.raises(InvalidAdapter):
        run(watched.add("bad@1", tmp_path, no_room))
    found = samples(metrics.text())
    assert found["raylora_adapter_loads_total", "home@2", "ok"] == 1
    assert found["raylora_adapter_loads_total", "bad@1", "failed"] == 1
    assert found["raylora_adapter_evictions_total", "home@2"] == 1
    assert found["raylora_adapter_load_seconds_count",] == 1
    assert watched.capacity == slots.capacity


def test_replicas_are_told_apart_in_one_text():
    texts: dict[str, str] = {}
    for replica in ("one", "two"):
        metrics = Metrics()
        metrics.tell(record("a@1"))
        texts[replica] = metrics.text([Level("requests_running", "x", 2, {})])
    text = merged(texts)
    found = samples(text)
    for replica in texts:
        assert found["raylora_requests_total", "a@1", replica, "200"] == 1
        assert found["raylora_requests_running", replica] == 2
        assert found["raylora_request_seconds_bucket", "a@1", "+Inf", replica] == 1
    assert text.count("# TYPE raylora_requests_total counter") == 1
