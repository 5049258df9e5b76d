"""`raylora adapters promote | rollback | tag | delete`: what changes about a version."""

from collections.abc import Sequence

import click
from rich.console import Group

from raylora.cli.options import output_option, tracking_option
from raylora.cli.output import emit, make_table, next_commands
from raylora.cli.tracked import same_store, store_uri
from raylora.errors import InvalidConfig, Problem
from raylora.tracking.adapters import promotion
from raylora.tracking.adapters.decisions import Decision
from raylora.tracking.adapters.registry import CHAMPION, Registry

OURS = "raylora."
"""Before the keys of tags that raylora sets itself."""

alias_option = click.option("--alias", default=CHAMPION, show_default=True, help="Alias to move.")
force_option = click.option("--force", is_flag=True, help="Do it all the same; needs a --reason.")
reason_option = click.option("--reason", default="", help="Why; kept with the decision.")


@click.command(name="promote")
@click.argument("ref")
@alias_option
@force_option
@reason_option
@tracking_option
@output_option
def promote_command(
    ref: str,
    alias: str,
    force: bool,
    reason: str,
    tracking_uri: str | None,
    outputs: str,
    output: str,
) -> None:
    """Point an alias at a version that passes its gate. REF is NAME@7 or NAME@ALIAS.

    The gate is the one of the version's own spec (gate in its configuration); the decision is
    kept with its figures. Ends with exit code 1 where the version does not pass.
    """
    registry = Registry(store_uri(tracking_uri, outputs))
    decision = promotion.promote(
        registry, ref, alias, force=_forced(force, reason), reason=reason or None
    )
    _show(decision, tracking_uri, outputs, output)


@click.command(name="rollback")
@click.argument("name")
@alias_option
@reason_option
@tracking_option
@output_option
def rollback_command(
    name: str, alias: str, reason: str, tracking_uri: str | None, outputs: str, output: str
) -> None:
    """Point an alias of NAME at the version it pointed at before, one step back.

    The gate is not asked: the version had the alias before.
    """
    registry = Registry(store_uri(tracking_uri, outputs))
    decision = promotion.rollback(registry, name, alias, reason=reason or None)
    _show(decision, tracking_uri, outputs, output)


@click.command(name="tag")
@click.argument("ref")
@click.argument("tags", nargs=-1, required=True, metavar="KEY=VALUE ...")
@tracking_option
@output_option
def tag_command(
    ref: str, tags: tuple[str, ...], tracking_uri: str | None, outputs: str, output: str
) -> None:
    """Set tags of a version, over earlier ones of the same key."""
    wanted = _parsed(tags)
    registry = Registry(store_uri(tracking_uri, outputs))
    version = registry.resolve(ref)
    registry.tag(version.name, version.version, wanted)
    emit({"version": str(version), "tags": version.tags | wanted}, output)


@click.command(name="delete")
@click.argument("ref")
@force_option
@reason_option
@tracking_option
@output_option
def delete_command(
    ref: str, force: bool, reason: str, tracking_uri: str | None, outputs: str, output: str
) -> None:
    """Take a version out of the registry. REF is NAME@7.

    Its number is not given again, and its run and files stay where they are. A version that an
    alias points at is deleted with --force only, and the alias with it.
    """
    registry = Registry(store_uri(tracking_uri, outputs))
    version = promotion.delete(registry, ref, force=_forced(force, reason), reason=reason or None)
    emit({"deleted": str(version), "aliases": list(version.aliases)}, output)


def _forced(force: bool, reason: str) -> bool:
    if force and not reason:
        raise click.UsageError("--force needs a --reason, which is kept with the decision")
    return force


def _parsed(tags: Sequence[str]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    problems: list[Problem] = []
    for text in tags:
        key, equals, value = text.partition("=")
        if not key or not equals:
            problems.append(Problem(text, "a tag is a key and a value", "Write KEY=VALUE."))
        elif key.startswith(OURS):
            remedy = "Choose a key that begins otherwise."
            problems.append(Problem(text, f"tags in {OURS}* are raylora's own", remedy))
        else:
            wanted[key] = value
    if problems:
        raise InvalidConfig(problems)
    return wanted


def _show(decision: Decision, tracking_uri: str | None, outputs: str, output: str) -> None:
    emit(decision, output, lambda: _tables(decision))
    if output == "table":
        store = same_store(tracking_uri, outputs)
        next_commands([f"raylora adapters show {decision.name}@{decision.alias}{store}"])


def _tables(decision: Decision) -> Group:
    rows = [(key, value) for key, value in vars(decision).items() if key not in ("checks", "id")]
    tables = [make_table(("decision", ""), rows)]
    if decision.checks:
        found = [(c.check, c.outcome, c.found, c.detail) for c in decision.checks]
        tables.append(make_table(("check", "outcome", "found", ""), found))
    return Group(*tables)
