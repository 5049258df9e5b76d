"""The ingress's door: who may not come in is told so before a body is read or a replica asked."""

from starlette.types import ASGIApp

from raylora.config.serve_spec import ServeSpec
from raylora.serve.edge.access_log import access_log
from raylora.serve.edge.gate import Gate
from raylora.serve.edge.keys import keyring
from raylora.serve.edge.observer import Observer
from raylora.serve.edge.rate import Limiter
from raylora.serve.edge.request_record import RequestRecord
from raylora.serve.ingress.refusals import Refusals


def behind_door(app: ASGIApp, spec: ServeSpec, refusals: Refusals) -> ASGIApp:
    """The application with keys and requests a minute before it, as the spec says.

    There is one ingress, so these limits hold for all replicas together. What it refuses is in its
    access log and counted; the rest is for the replica that answers. Raises NotFound,
    InvalidConfig.
    """
    log = access_log(spec.access_log)

    def tell(record: RequestRecord) -> None:
        if record.refused:
            log(record)
            refusals.tell(record)

    gate = Gate(
        app,
        keyring(spec.keys),
        Limiter(),
        loopback_only=spec.keys is None,
        counts=True,
    )
    return Observer(gate, (tell,))
