"""What Prometheus reads: requests, times and tokens for each adapter, bounded in number."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from raylora.serve.edge.request_record import RequestRecord

MAX_ADAPTERS = 100
"""Versions with series of their own; each has about 40."""
IDLE_S = 3600.0
"""A version that nobody asked for this long gives its series up to another one."""
OTHER = "other"

FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
LOAD_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True)
class Level:
    """How much there is of something now, or has been so far."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    grows: bool = False
    """Whether it is a count since the replica began."""


class Labels:
    """Which versions have series of their own: the first ones, and who follows an idle one.

    So there are at most `limit` at a time, and at most that many new ones in an hour.
    """

    def __init__(
        self, drop: Callable[[str], None], limit: int, clock: Callable[[], float]
    ) -> None:
        self._drop = drop
        self._limit = limit
        self._clock = clock
        self._used: OrderedDict[str, float] = OrderedDict()
        """When each was last asked for, the one that was idle longest first."""

    def of(self, name: str) -> str:
        """The label for a name: itself, or `other`."""
        now = self._clock()
        if name not in self._used and len(self._used) >= self._limit:
            oldest, at = next(iter(self._used.items()))
            if now - at < IDLE_S:
                return OTHER
            del self._used[oldest]
            self._drop(oldest)
        self._used[name] = now
        self._used.move_to_end(name)
        return name


class Metrics:
    """The series of one replica."""

    def __init__(
        self,
        *,
        limit: int = MAX_ADAPTERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = CollectorRegistry()
        self._labels = Labels(self._forget, limit, clock)
        self._series: dict[str, _Answers] = {}
        """To look a series up by its label takes as long as to count."""
        self._requests = self._counter("requests", "Requests for answers.", "adapter", "status")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts.", "adapter")
        self._completion = self._counter("completion_tokens", "Tokens generated.", "adapter")
        self._first = self._histogram(
            "time_to_first_token_seconds", "From a request to its first text.", FIRST_TOKEN_S
        )
        self._token = self._histogram(
            "time_per_output_token_seconds", "For each token after the first.", TOKEN_S
        )
        self._total = self._histogram("request_seconds", "Of whole answers.", REQUEST_S)
        self._loads = self._counter("adapter_loads", "Loads.", "adapter", "result")
        self._evictions = self._counter(
            "adapter_evictions", "Versions taken out of the bank.", "adapter"
        )
        self._load_seconds = Histogram(
            "raylora_adapter_load_seconds",
            "From the disk into the bank.",
            buckets=LOAD_S,
            registry=self.registry,
        )
        self._by_adapter = (
            *(self._requests, self._prompt, self._completion, self._first, self._token),
            *(self._total, self._loads, self._evictions),
        )

    def tell(self, record: RequestRecord) -> None:
        """Count a request that was to be answered by a model."""
        if not record.generates:
            return
        # What did not get as far as a version has none: names that clients make up are no label.
        adapter = "" if record.answered_by is None else self._labels.of(record.answered_by)
        self._requests.labels(adapter, str(record.status)).inc()
        first_s = record.first_token_s
        if first_s is None:
            return
        series = self._series.get(adapter)
        if series is None:
            series = self._series[adapter] = self._of(adapter)
        series.prompt.inc(record.prompt_tokens)
        series.completion.inc(record.completion_tokens)
        series.first.observe(first_s)
        series.total.observe(record.total_s)
        for row in record.rows.values():
            token_s = row.token_s
            if token_s is not None:
                series.token.observe(token_s)

    def loaded(self, key: str, seconds: float) -> None:
        """A version is in the bank."""
        self._loads.labels(self._labels.of(key), "ok").inc()
        self._load_seconds.observe(seconds)

    def refused(self, key: str) -> None:
        """A version did not get into the bank."""
        self._loads.labels(self._labels.of(key), "failed").inc()

    def evicted(self, key: str) -> None:
        """A version has left the bank: for another one, or since its alias moved on."""
        self._evictions.labels(self._labels.of(key)).inc()

    def text(self, levels: Sequence[Level] = ()) -> str:
        """All series in Prometheus' text format, and these levels."""
        now = CollectorRegistry()
        now.register(_LevelCollector(levels))
        return (generate_latest(self.registry) + generate_latest(now)).decode()

    def _of(self, adapter: str) -> "_Answers":
        return _Answers(
            *(self._prompt.labels(adapter), self._completion.labels(adapter)),
            *(self._first.labels(adapter), self._token.labels(adapter)),
            self._total.labels(adapter),
        )

    def _forget(self, adapter: str) -> None:
        self._series.pop(adapter, None)
        for series in self._by_adapter:
            series.remove_by_labels({"adapter": adapter})

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"raylora_{name}", help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(
            f"raylora_{name}", help_text, ("adapter",), buckets=buckets, registry=self.registry
        )


class _Answers(NamedTuple):
    """The series of one version's answers."""

    prompt: Counter
    completion: Counter
    first: Histogram
    token: Histogram
    total: Histogram


class _LevelCollector(Collector):
    def __init__(self, levels: Sequence[Level]) -> None:
        self._levels = levels

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for level in self._levels:
            kind = CounterMetricFamily if level.grows else GaugeMetricFamily
            family = families.setdefault(
                level.name, kind(f"raylora_{level.name}", level.help, labels=list(level.labels))
            )
            family.add_metric(list(level.labels.values()), level.value)
        yield from families.values()
