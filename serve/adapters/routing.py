"""Routes in force on one replica: leases for what they choose, rollback, and shadow answers."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from raylora.config.serve_spec import RouteSpec
from raylora.engine.request import Completion
from raylora.errors import RayloraError
from raylora.serve.adapters.residency import Residency
from raylora.serve.adapters.resident import PASSING, Lease
from raylora.serve.adapters.routes import Choice, Route

log = logging.getLogger(__name__)

EXCERPT = 60
"""Characters of each answer from their first difference on, where the route logs text."""


class Routing:
    """Turns the `model` of a request into a lease, through its route where it has one."""

    def __init__(self, residency: Residency, routes: Mapping[str, RouteSpec]) -> None:
        self._residency = residency
        self._routes = {name: Route(name, spec) for name, spec in routes.items()}

    @property
    def facts(self) -> list[dict[str, Any]]:
        """What each route is and did."""
        return [route.facts() for route in self._routes.values()]

    async def acquire(self, model: str, user: str | None) -> Lease:
        """As Residency.acquire. Where the canary cannot be loaded, stable answers."""
        route = self._routes.get(model)
        if route is None:
            return await self._residency.acquire(model)
        await self._residency.catalogue.refresh(2 * self._residency.catalogue.fresh_s)
        route.rolled_back |= self._residency.rolled_back
        choice = route.choose(user, self._canary(route))
        if choice.model == route.stable:
            return await self._leased(choice)
        try:
            return await self._leased(choice)
        except RayloraError as error:
            log.warning("%s cannot answer, %s does: %s", route.canary, route.stable, error.message)
            if not isinstance(error, PASSING):
                self._count(route, self._canary(route) or route.canary, failed=True)
            return await self._residency.acquire(route.stable)

    def record(self, version: str, *, failed: bool) -> None:
        """An answer of this version has ended."""
        for route in self._routes.values():
            if version.startswith(f"{route.name}@"):
                self._count(route, version, failed=failed)

    def compare(
        self, lease: Lease, answers: Sequence[Completion], others: Sequence[Completion]
    ) -> None:
        """Log how shadow answers differ from those that were given."""
        assert lease.shadow is not None
        route = self._routes[lease.shadow.partition("@")[0]]
        for given, other in zip(answers, others, strict=True):
            differs = given.token_ids != other.token_ids
            route.compared(differs)
            if differs:
                log.info("shadow %s", to_json(_difference(route, lease, given, other)).decode())

    def _canary(self, route: Route) -> str | None:
        return self._residency.meaning(route.canary)

    def _count(self, route: Route, version: str, *, failed: bool) -> None:
        if route.record(version, failed, self._canary(route)):
            log.error("%s fails too often; %s alone answers now", version, route.stable)
            self._residency.remember_rollback(version)

    async def _leased(self, choice: Choice) -> Lease:
        lease = await self._residency.acquire(choice.model)
        lease.shadow = choice.shadow
        return lease


def _difference(
    route: Route, lease: Lease, given: Completion, other: Completion
) -> dict[str, Any]:
    at = next(
        (i for i, (a, b) in enumerate(zip(given.text, other.text, strict=False)) if a != b),
        min(len(given.text), len(other.text)),
    )
    facts: dict[str, Any] = {
        "route": route.name,
        "stable": lease.name,
        "canary": lease.shadow,
        "differ_at": at,
        "characters": [len(given.text), len(other.text)],
        "finish_reasons": [given.finish_reason, other.finish_reason],
    }
    if route.spec.log_text:
        facts["text"] = [each.text[at : at + EXCERPT] for each in (given, other)]
    return facts
