"""Promotion: the one place that moves an alias.

    read the chain -> ask the gate -> claim the next place in the chain -> point the alias

The chain of decisions is what holds; MLflow's alias follows it. Two that decide at the same time
claim the same place, one of them gets it, and the other is told and has changed nothing. Whoever
moved the alias looks at the chain once more and moves on where it has grown meanwhile, so that
after the last of them the alias is that of the last decision.
"""

import json
from dataclasses import asdict, replace

from raylora.config.gate_spec import GateSpec
from raylora.errors import InvalidConfig, NotFound, Problem, PromotionConflict, PromotionRefused
from raylora.tracking.adapters import row_scores
from raylora.tracking.adapters.decisions import Decision, Kind, chain_of, decide, earlier_versions
from raylora.tracking.adapters.gate import Check, Evidence, judge
from raylora.tracking.adapters.ledger import Ledger
from raylora.tracking.adapters.reference import parse, parse_alias
from raylora.tracking.adapters.registry import CHAMPION, Registry
from raylora.tracking.adapters.version import Version

PROMOTION_TAG = "raylora.promotion."
"""On a version, with the alias behind it: the last decision that brought the alias here."""
REFUSAL_TAG = "raylora.refusal."
"""The same for the last decision that did not."""
GATE_TAG = "raylora.gate"
"""On a version: the gate of its spec, as JSON."""
ASKED = "asked for"
"""The reason of a decision for which none was given."""


def promote(
    registry: Registry,
    ref: str,
    alias: str = CHAMPION,
    *,
    only_if_unset: bool = False,
    force: bool = False,
    reason: str | None = None,
) -> Decision:
    """Point an alias at the version that ref means, if that passes its gate.

    only_if_unset leaves an alias that points anywhere: the first version becomes champion so, and
    the second does not. force: move it whatever the gate says. Raises InvalidConfig for a bare
    name or a bad alias, NotFound, PromotionRefused, PromotionConflict.
    """
    parse_alias(alias)
    _says_which(ref)
    version = registry.resolve(ref)
    ledger = registry.ledger(version.name)
    chain = chain_of(ledger.entries(), alias)
    incumbent = _incumbent(registry, version.name, alias, chain)
    moved = incumbent is None or (incumbent != version.version and not only_if_unset)
    checks = _judged(registry, version, incumbent) if moved else []
    held_back = [check for check in checks if check.outcome.holds_back]
    decision = decide(
        Kind.PROMOTE,
        version.name,
        alias,
        chain,
        from_version=incumbent,
        to_version=version.version if moved else incumbent,
        moved=moved,
        forced=bool(held_back),
        reason=_why(version.name, incumbent, moved, reason),
        checks=checks,
    )
    if not moved:
        if chain:
            _settle(registry, ledger, version.name, alias)
        return decision
    if held_back and not force:
        raise _refuse(registry, ledger, decision, held_back)
    _enact(registry, ledger, decision)
    return decision


def rollback(
    registry: Registry, name: str, alias: str = CHAMPION, *, reason: str | None = None
) -> Decision:
    """Point an alias at the version that it pointed at before, without asking the gate.

    Versions that are gone are passed over. Raises NotFound where there is no earlier one,
    PromotionConflict.
    """
    parse_alias(alias)
    ledger = registry.ledger(name)
    chain = chain_of(ledger.entries(), alias)
    there = registry.numbers(name)
    earlier = [number for number in earlier_versions(chain) if number in there]
    if not earlier:
        raise NotFound(
            f"{name}@{alias} has no earlier version to go back to",
            hint=f"`raylora adapters show {name}` lists the versions and what was decided",
        )
    decision = decide(
        Kind.ROLLBACK,
        name,
        alias,
        chain,
        from_version=chain[-1].to_version,
        to_version=earlier[0],
        reason=reason or ASKED,
    )
    _enact(registry, ledger, decision)
    return decision


def delete(
    registry: Registry, ref: str, *, force: bool = False, reason: str | None = None
) -> Version:
    """Take a version out of the registry.

    One that an alias points at is deleted with `force` only, and the alias with it. Raises
    InvalidConfig, NotFound, PromotionConflict.
    """
    _says_which(ref)
    version = registry.resolve(ref)
    if version.aliases and not force:
        raise InvalidConfig(
            [
                Problem(
                    key=ref,
                    message=f"{version} is {', '.join(version.aliases)}",
                    remedy="Promote or roll back to another version first, or give --force "
                    "and a --reason",
                )
            ]
        )
    ledger = registry.ledger(version.name)
    for alias in version.aliases:
        chain = chain_of(ledger.entries(), alias)
        decision = decide(
            Kind.DELETE,
            version.name,
            alias,
            chain,
            from_version=_incumbent(registry, version.name, alias, chain),
            to_version=None,
            forced=True,
            reason=reason or ASKED,
        )
        _enact(registry, ledger, decision)
    registry.delete(version)
    return version


def history(registry: Registry, name: str) -> list[Decision]:
    """All decisions about a name's aliases, the first one first."""
    entries = registry.ledger(name).entries()
    aliases = sorted({key.rpartition("/")[0] for key in entries})
    found = [decision for alias in aliases for decision in chain_of(entries, alias)]
    return sorted(found, key=lambda decision: decision.when)


def _says_which(ref: str) -> None:
    """A bare name means its champion, and promoting that to champion would do nothing."""
    reference = parse(ref)
    if reference.version is None and reference.alias is None:
        raise InvalidConfig(
            [
                Problem(
                    key=ref,
                    message="this needs a version, and a name alone means its champion",
                    remedy=f"Write {ref}@NUMBER; `raylora adapters show {ref}` lists the versions",
                )
            ]
        )


def _incumbent(registry: Registry, name: str, alias: str, chain: list[Decision]) -> int | None:
    """The chain's word; MLflow's only for an alias that nothing was decided about here."""
    return chain[-1].to_version if chain else registry.aliases(name).get(alias)


def _judged(registry: Registry, version: Version, incumbent: int | None) -> list[Check]:
    gate = GateSpec.model_validate_json(version.tags.get(GATE_TAG, "{}"))
    beside = None
    if incumbent is not None and incumbent in registry.numbers(version.name):
        beside = _evidence(registry, registry.resolve(f"{version.name}@{incumbent}"))
    return list(judge(gate, _evidence(registry, version), beside, registry.fault(version)))


def _evidence(registry: Registry, version: Version) -> Evidence:
    text = registry.read(version, row_scores.FILE)
    rows = {} if text is None else row_scores.parse(text)
    return Evidence(str(version), registry.metrics(version), rows)


def _why(name: str, incumbent: int | None, moved: bool, reason: str | None) -> str:
    if not moved:
        return f"the alias points at {name}@{incumbent} already"
    return reason or ("the alias was not set" if incumbent is None else ASKED)


def _refuse(
    registry: Registry, ledger: Ledger, decision: Decision, held_back: list[Check]
) -> PromotionRefused:
    """Record it on the version, beside the chain, and say why."""
    refused = replace(decision, number=0, moved=False, forced=False)
    _record(registry, ledger, refused, refused.to_version, REFUSAL_TAG)
    said = "; ".join(
        f"{check.check}: {check.outcome}"
        + (f", found {check.found:.4g}" if check.found is not None else "")
        + (f", {check.detail}" if check.detail else "")
        for check in held_back
    )
    name = decision.name
    return PromotionRefused(
        f"{name}@{refused.to_version} does not pass its gate, and {name}@{decision.alias} "
        f"stays: {said}",
        hint="--force moves it all the same, and needs a --reason",
    )


def _enact(registry: Registry, ledger: Ledger, decision: Decision) -> None:
    if not ledger.claim(decision.key, decision.entry()):
        other = chain_of(ledger.entries(), decision.alias)[decision.number - 1]
        raise PromotionConflict(
            f"{other.who} moved {decision.name}@{decision.alias} to version {other.to_version} "
            "while this was being decided; nothing was changed",
            hint="look at where it points now, and ask again",
        )
    _settle(registry, ledger, decision.name, decision.alias)
    _record(registry, ledger, decision, decision.to_version, PROMOTION_TAG)


def _settle(registry: Registry, ledger: Ledger, name: str, alias: str) -> None:
    """Let the alias follow the chain, until the chain has not grown meanwhile."""
    last = chain_of(ledger.entries(), alias)[-1]
    while True:
        registry.point(name, alias, last.to_version)
        now = chain_of(ledger.entries(), alias)[-1]
        if now == last:
            return
        last = now


def _record(
    registry: Registry, ledger: Ledger, decision: Decision, on: int | None, tag: str
) -> None:
    """The decision with its figures, as an artifact of the ledger and a tag of a version."""
    content = asdict(decision)
    place = f"{decision.alias}/{decision.number:06d}" if decision.number else "refused"
    ledger.keep(content, f"decisions/{place}-{decision.id}.json")
    if on is not None:
        registry.tag(decision.name, on, {tag + decision.alias: json.dumps(content)})
