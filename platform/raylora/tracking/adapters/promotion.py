"""Promotion: the one place that moves an alias.

read the chain -> ask the gate -> claim the next place in the chain -> point the alias
"""

from collections.abc import Mapping

from raylora.config.gate_spec import GateSpec
from raylora.errors import InvalidConfig, NotFound, Problem
from raylora.tracking.adapters import row_scores
from raylora.tracking.adapters.decisions import Decision, Kind, chain_of, decide, earlier_versions
from raylora.tracking.adapters.enactment import enact, refused, settle
from raylora.tracking.adapters.gate import Check, Evidence, judge
from raylora.tracking.adapters.reference import parse, parse_alias
from raylora.tracking.adapters.registry import CHAMPION, Registry
from raylora.tracking.adapters.version import Version
from raylora.tracking.nearest import not_found

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
            settle(registry, ledger, version.name, alias)
        return decision
    if held_back and not force:
        raise refused(registry, ledger, decision, held_back)
    enact(registry, ledger, decision)
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
    aliases = registry.aliases(name)
    if aliases and not chain and alias not in aliases:
        raise not_found("alias", f"{name}@{alias}", [f"{name}@{known}" for known in aliases])
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
    enact(registry, ledger, decision)
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
    ledger = registry.ledger(version.name)
    entries = ledger.entries()
    held = [
        alias
        for alias in sorted({*_decided(entries), *registry.aliases(version.name)})
        if _incumbent(registry, version.name, alias, chain_of(entries, alias)) == version.version
    ]
    if held and not force:
        raise InvalidConfig(
            [
                Problem(
                    key=ref,
                    message=f"{version} is {', '.join(held)}",
                    remedy="Promote or roll back to another version first, or give --force "
                    "and a --reason",
                )
            ]
        )
    for alias in held:
        decision = decide(
            Kind.DELETE,
            version.name,
            alias,
            chain_of(entries, alias),
            from_version=version.version,
            to_version=None,
            forced=True,
            reason=reason or ASKED,
        )
        enact(registry, ledger, decision)
    registry.delete(version)
    return version


def history(registry: Registry, name: str) -> list[Decision]:
    """All decisions about a name's aliases, the first one first."""
    entries = registry.ledger(name).entries()
    found = [
        decision for alias in sorted(_decided(entries)) for decision in chain_of(entries, alias)
    ]
    return sorted(found, key=lambda decision: decision.when)


def _decided(entries: Mapping[str, str]) -> set[str]:
    """The aliases about which something was decided."""
    return {key.rpartition("/")[0] for key in entries}


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
