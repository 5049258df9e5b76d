"""What stands between HTTP and the routes: keys, limits, records, metrics and the page."""

from dataclasses import dataclass, field

from fastapi import FastAPI
from fastapi.responses import Response

from raylora.config.serve_spec import ServeSpec
from raylora.serve.edge.access_log import AccessLog, access_log
from raylora.serve.edge.gate import Gate
from raylora.serve.edge.keys import Keyring, OpenDoor, keyring
from raylora.serve.edge.levels import levels
from raylora.serve.edge.metrics import Metrics
from raylora.serve.edge.observer import Observer
from raylora.serve.edge.rate import Limiter
from raylora.serve.edge.request_record import RequestRecord
from raylora.serve.http.body_limit import BodyLimit
from raylora.serve.http.endpoint import Endpoint
from raylora.serve.http.page import add_page
from raylora.serve.ingress.metrics_text import CONTENT_TYPE


def _untold(record: RequestRecord) -> None:
    pass


@dataclass
class Edge:
    """The surroundings of one replica's routes; without arguments, open and silent."""

    keyring: Keyring = field(default_factory=OpenDoor)
    limiter: Limiter = field(default_factory=Limiter)
    loopback_only: bool = False
    counts: bool = True
    """Whether requests count here against their key's limit: not behind an ingress, which does."""
    metrics: Metrics = field(default_factory=Metrics)
    log: AccessLog = _untold

    @classmethod
    def of(cls, spec: ServeSpec, *, counts: bool = True) -> "Edge":
        """As the spec says. Raises NotFound, InvalidConfig for its key file."""
        return cls(
            keyring=keyring(spec.keys),
            loopback_only=spec.keys is None,
            counts=counts,
            log=access_log(spec.access_log),
        )

    def surround(self, app: FastAPI, endpoint: Endpoint) -> None:
        """Add the middleware, of which the last is the outermost, and the routes."""
        app.add_middleware(BodyLimit)
        app.add_middleware(
            Gate,
            keyring=self.keyring,
            limiter=self.limiter,
            loopback_only=self.loopback_only,
            counts=self.counts,
        )
        app.add_middleware(Observer, told=(self.metrics.tell, self.log))
        add_page(app)

        @app.get("/metrics", include_in_schema=False)
        async def metrics() -> Response:
            text = self.metrics.text(await levels(endpoint))
            return Response(text, headers={"content-type": CONTENT_TYPE})
