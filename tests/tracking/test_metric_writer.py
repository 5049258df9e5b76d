import logging
import threading
import time
from collections.abc import Sequence

import pytest

from raylora.errors import RayloraError, Unreachable
from raylora.tracking import metric_writer
from raylora.tracking.metric_writer import MetricWriter, Point


class Store:
    """Takes points, or fails as told."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.failure: Exception | None = None
        self.calls = 0
        self.twice = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def send(self, points: Sequence[Point]) -> None:
        self.calls += 1
        if self.calls == 2:
            self.twice.set()
        self.open.wait(30)
        if self.failure is not None:
            raise self.failure
        self.points.extend(points)

    def steps(self, key: str = "loss") -> list[int]:
        return [point.step for point in self.points if point.key == key]


def test_sends_every_point_in_order_and_few_requests() -> None:
    store = Store()
    writer = MetricWriter(store.send, {})
    for step in range(1, 501):
        writer.put({"loss": 1 / step, "lr": 0.1}, step)
    writer.close(30)
    assert store.steps("loss") == store.steps("lr") == list(range(1, 501))
    assert store.calls <= 3
    assert writer.lost == 0


def test_a_put_does_not_wait_for_a_store_that_hangs() -> None:
    store = Store()
    store.open.clear()
    writer = MetricWriter(store.send, {})
    writer.put({"loss": 1.0}, 0)
    began = time.perf_counter()
    for step in range(1, 1001):
        writer.put({"loss": 1.0}, step)
    assert time.perf_counter() - began < 1.0
    store.open.set()
    writer.close(30)
    assert store.steps() == list(range(1001))


def test_steps_redone_are_not_sent_again() -> None:
    store = Store()
    writer = MetricWriter(store.send, {"loss": 5})
    for step in [4, 5, 6, 7, 6, 7, 8]:
        writer.put({"loss": float(step), "new": float(step)}, step)
    writer.close(30)
    assert store.steps("loss") == [6, 7, 8]
    assert store.steps("new") == [4, 5, 6, 7, 8]


def test_an_outage_delays_points_and_loses_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metric_writer, "LONGEST_PAUSE_SECONDS", 0.1)
    store = Store()
    store.failure = Unreachable("gone")
    writer = MetricWriter(store.send, {})
    with caplog.at_level(logging.WARNING):
        for step in range(10):
            writer.put({"loss": 1.0}, step)
        assert store.twice.wait(30)
    assert [record.message for record in caplog.records] == [
        "metrics wait, the tracking store does not answer: gone"
    ]
    store.failure = None
    assert writer.flush(30)
    assert store.steps() == list(range(10))
    writer.close(30)
    assert (writer.lost, writer.error) == (0, None)


def test_close_counts_what_a_dead_store_did_not_take() -> None:
    store = Store()
    store.failure = Unreachable("gone")
    writer = MetricWriter(store.send, {})
    for step in range(7):
        writer.put({"loss": 1.0}, step)
    writer.close(0.2)
    assert writer.lost == 7
    assert str(writer.error) == "gone"


def test_a_refused_batch_is_lost_and_the_next_is_sent() -> None:
    store = Store()
    store.failure = RayloraError("bad key")
    writer = MetricWriter(store.send, {})
    writer.put({"loss": 1.0}, 1)
    assert writer.flush(30)
    store.failure = None
    writer.put({"loss": 1.0}, 2)
    writer.close(30)
    assert store.steps() == [2]
    assert writer.lost == 1


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_writer, "CAPACITY", 100)
    store = Store()
    store.open.clear()
    writer = MetricWriter(store.send, {})
    for step in range(150):
        writer.put({"loss": 1.0}, step)
    store.open.set()
    writer.close(30)
    assert writer.lost == 50
    assert store.steps() == list(range(100))


def test_a_point_after_the_end_is_counted_as_lost() -> None:
    store = Store()
    writer = MetricWriter(store.send, {})
    writer.close(1)
    writer.put({"loss": 1.0}, 1)
    assert writer.lost == 1
