"""What makes a decision true: its place in the chain, the alias behind it, the records of it.

The chain of decisions is what holds; MLflow's alias follows it. Two that decide at the same time
claim the same place, one of them gets it, and the other is told and has changed nothing. Whoever
moved the alias looks at the chain once more and moves on where it has grown meanwhile, so that
after the last of them the alias is that of the last decision.
"""

import json
from dataclasses import asdict, replace

from raylora.errors import PromotionConflict, PromotionRefused
from raylora.tracking.adapters.decisions import Decision, chain_of
from raylora.tracking.adapters.gate import Check
from raylora.tracking.adapters.ledger import Ledger
from raylora.tracking.adapters.registry import Registry

PROMOTION_TAG = "raylora.promotion."
"""On a version, with the alias behind it: the last decision that brought the alias here."""
REFUSAL_TAG = "raylora.refusal."
"""The same for the last decision that did not."""


def enact(registry: Registry, ledger: Ledger, decision: Decision) -> None:
    """Claim its place in the chain, let the alias follow, record it. Raises PromotionConflict."""
    if not ledger.claim(decision.key, decision.entry()):
        other = chain_of(ledger.entries(), decision.alias)[decision.number - 1]
        raise PromotionConflict(
            f"{other.who} moved {decision.name}@{decision.alias} to version {other.to_version} "
            "while this was being decided; nothing was changed",
            hint="look at where it points now, and ask again",
        )
    settle(registry, ledger, decision.name, decision.alias)
    _record(registry, ledger, decision, decision.to_version, PROMOTION_TAG)


def settle(registry: Registry, ledger: Ledger, name: str, alias: str) -> None:
    """Let the alias follow the chain, until the chain has not grown meanwhile."""
    last = chain_of(ledger.entries(), alias)[-1]
    while True:
        registry.point(name, alias, last.to_version)
        now = chain_of(ledger.entries(), alias)[-1]
        if now == last:
            return
        last = now


def refused(
    registry: Registry, ledger: Ledger, decision: Decision, held_back: list[Check]
) -> PromotionRefused:
    """Record it on the version, beside the chain, and say why."""
    kept = replace(decision, number=0, moved=False, forced=False)
    _record(registry, ledger, kept, kept.to_version, REFUSAL_TAG)
    said = "; ".join(
        f"{check.check}: {check.outcome}"
        + (f", found {check.found:.4g}" if check.found is not None else "")
        + (f", {check.detail}" if check.detail else "")
        for check in held_back
    )
    name = decision.name
    return PromotionRefused(
        f"{name}@{kept.to_version} does not pass its gate, and {name}@{decision.alias} "
        f"stays: {said}",
        hint="--force moves it all the same, and needs a --reason",
    )


def _record(
    registry: Registry, ledger: Ledger, decision: Decision, on: int | None, tag: str
) -> None:
    """The decision with its figures, as an artifact of the ledger and a tag of a version."""
    content = asdict(decision)
    place = f"{decision.alias}/{decision.number:06d}" if decision.number else "refused"
    ledger.keep(content, f"decisions/{place}-{decision.id}.json")
    if on is not None:
        registry.tag(decision.name, on, {tag + decision.alias: json.dumps(content)})
