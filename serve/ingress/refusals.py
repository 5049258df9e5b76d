"""What the ingress itself refuses: counted for /metrics, since no replica sees it."""

from prometheus_client import CollectorRegistry, Counter, generate_latest

from raylora.serve.edge.request_record import RequestRecord


class Refusals:
    """Counts by status."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._all = Counter(
            "raylora_refused",
            "Requests of any kind that no replica was asked for an answer to, or gave none.",
            ("status",),
            registry=self._registry,
        )
        # Beside the replicas' own, so that their sum is of all requests for answers.
        self._answers = Counter(
            "raylora_requests",
            "Requests for answers.",
            ("adapter", "status"),
            registry=self._registry,
        )

    def tell(self, record: RequestRecord) -> None:
        """Count a request that the ingress has answered itself."""
        self._all.labels(str(record.status)).inc()
        if record.generates:
            self._answers.labels("", str(record.status)).inc()

    def text(self) -> str:
        """In Prometheus' text format."""
        return generate_latest(self._registry).decode()
