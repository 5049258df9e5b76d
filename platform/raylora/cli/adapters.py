"""`raylora adapters`: registered adapters. Here: list, show and verify."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Group

from raylora.cli.adapters_alias import (
    delete_command,
    promote_command,
    rollback_command,
    tag_command,
)
from raylora.cli.adapters_files import export_command, facts_table, import_command
from raylora.cli.adapters_sums import combine_command, merge_command
from raylora.cli.child import run_program
from raylora.cli.options import output_option, tracking_option
from raylora.cli.output import MISSING, emit, make_table, next_commands
from raylora.cli.tracked import same_store, store_uri
from raylora.config.places import cache
from raylora.errors import NotFound
from raylora.tracking.adapters.decisions import Decision
from raylora.tracking.adapters.lineage import Lineage, lineage_of
from raylora.tracking.adapters.promotion import history
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.adapters.version import AdapterDetails
from raylora.tracking.params import flatten

VERIFY = "raylora.jobs.verify"


@click.group(name="adapters")
def command() -> None:
    """List, check, promote, import and export registered adapters."""


for other in (
    promote_command,
    rollback_command,
    tag_command,
    delete_command,
    import_command,
    export_command,
    merge_command,
    combine_command,
):
    command.add_command(other)


@command.command(name="list")
@tracking_option
@output_option
def list_command(tracking_uri: str | None, outputs: str, output: str) -> None:
    """Every adapter with its newest version and its aliases."""
    found = Registry(store_uri(tracking_uri, outputs)).list()
    emit(
        found,
        output,
        lambda: make_table(
            ("adapter", "newest", "aliases", "updated"),
            (
                (a.name, a.newest, _aliases(a.aliases), f"{a.updated:%Y-%m-%d %H:%M:%S}Z")
                for a in found
            ),
        ),
    )
    if found and output == "table":
        next_commands(
            [f"raylora adapters show {found[0].name}{same_store(tracking_uri, outputs)}"]
        )


@command.command(name="show")
@click.argument("ref")
@click.option("--lineage", is_flag=True, help="Where it comes from, instead: all that is known.")
@tracking_option
@output_option
def show_command(
    ref: str, lineage: bool, tracking_uri: str | None, outputs: str, output: str
) -> None:
    """What a version is made of. REF is NAME (its champion, or newest), NAME@7 or NAME@ALIAS."""
    registry = Registry(store_uri(tracking_uri, outputs))
    if lineage:
        found = lineage_of(registry, registry.resolve(ref))
        emit(found, output, lambda: _lineage(found))
        return
    details = registry.show(ref)
    decisions = history(registry, details.version.name)
    emit({**vars(details), "decisions": decisions}, output, lambda: _details(details, decisions))


@command.command(name="verify")
@click.argument("ref")
@tracking_option
@output_option
def verify_command(ref: str, tracking_uri: str | None, outputs: str, output: str) -> None:
    """Check the files of a directory, or of a registered NAME, NAME@7 or NAME@ALIAS."""
    directory = Path(ref)
    if not directory.is_dir():
        if "/" in ref:
            raise NotFound(f"there is no folder {ref}", hint="a version is written NAME@7")
        registry = Registry(store_uri(tracking_uri, outputs))
        directory = registry.download(registry.resolve(ref), cache() / "adapters")
    facts = run_program(VERIFY, [str(directory)], needed_for="checking an adapter")
    emit(facts, output, lambda: facts_table(facts))


def _aliases(aliases: Mapping[str, int]) -> str:
    return ", ".join(f"{alias} -> {number}" for alias, number in aliases.items())


def _details(details: AdapterDetails, decisions: Sequence[Decision]) -> Group:
    version = details.version
    return Group(
        make_table(
            ("version", str(version)),
            (
                ("aliases of this version", list(version.aliases)),
                ("registered", f"{version.created:%Y-%m-%d %H:%M:%S}Z"),
                ("run", version.run_id),
                ("files from", version.source),
                ("all versions", list(details.versions)),
                ("all aliases", _aliases(details.aliases)),
            ),
        ),
        make_table(("tag", "value"), sorted(version.tags.items())),
        make_table(("file", "bytes"), details.files.items()),
        make_table(
            ("decided", "alias", "what", "from", "to", "forced", "who", "reason"),
            (
                (d.when, d.alias, d.kind, d.from_version, d.to_version, d.forced, d.who, d.reason)
                for d in decisions
            ),
        ),
    )


def _lineage(lineage: Lineage) -> Group:
    known = {key: value for key, value in lineage.facts.items() if value is not None}
    facts = flatten(known) | dict.fromkeys(lineage.missing, MISSING)
    return Group(
        make_table(("version", lineage.version), [("run", lineage.run_id), *facts.items()]),
        make_table(("metric", "value"), lineage.metrics.items()),
    )
