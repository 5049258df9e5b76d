"""`raylora adapters import | export`: adapters into the registry and out."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from raylora.cli.child import run_program
from raylora.cli.options import output_option, tracking_option
from raylora.cli.output import emit, make_table, next_commands, note
from raylora.cli.tracked import same_store, store_uri, sync_line
from raylora.config.places import cache
from raylora.config.train_spec import TrackingSpec
from raylora.errors import RayloraError
from raylora.tracking.adapters.adoption import Adopted, adopt
from raylora.tracking.adapters.reference import parse_name
from raylora.tracking.adapters.registry import Registry

IMPORT = "raylora.jobs.import_adapter"


@click.command(name="import")
@click.argument("source")
@click.option("--name", required=True, help="Name that it is registered under.")
@click.option("--revision", help="Commit, branch or tag, where SOURCE is on the model hub.")
@click.option(
    "--model-config",
    metavar="PATH",
    help="The base's config.json, or its folder: the adapter's layers must fit it.",
)
@tracking_option
@output_option
def import_command(
    source: str,
    name: str,
    revision: str | None,
    model_config: str | None,
    tracking_uri: str | None,
    outputs: str,
    output: str,
) -> None:
    """Register a LoRA adapter that PEFT wrote. SOURCE is a directory, or OWNER/NAME on the hub.

    It passes the same check as one that was trained here: safetensors only, every key and shape,
    no NaN, nothing unknown in its config.
    """
    parse_name(name)
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "adapter"
        arguments = [source, str(into)]
        arguments += [f"--revision={revision}"] * bool(revision)
        arguments += [f"--model-config={model_config}"] * bool(model_config)
        facts = run_program(IMPORT, arguments, needed_for="importing an adapter")
        came = facts["lineage"]["imported"]
        adopted = adopt(
            TrackingSpec(uri=tracking_uri),
            outputs,
            name,
            into,
            params={"imported": came},
            tags=tags_of(facts) | {"raylora.imported": came["source"]},
        )
    tell(adopted, name, facts, tracking_uri, outputs, output)


@click.command(name="export")
@click.argument("ref")
@click.argument("directory", type=click.Path(path_type=Path))
@tracking_option
@output_option
def export_command(
    ref: str, directory: Path, tracking_uri: str | None, outputs: str, output: str
) -> None:
    """Copy a version's files to a new DIRECTORY that PEFT loads."""
    if directory.exists():
        raise RayloraError(f"{directory} exists already", hint="name a folder that does not exist")
    registry = Registry(store_uri(tracking_uri, outputs))
    version = registry.resolve(ref)
    files = registry.download(version, cache() / "adapters")
    shutil.copytree(files, directory)
    sizes = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
    emit({"version": str(version), "directory": str(directory), "files": sizes}, output)


def tell(
    adopted: Adopted,
    name: str,
    facts: dict[str, Any],
    tracking_uri: str | None,
    outputs: str,
    output: str,
) -> None:
    known = {"adapter": adopted.adapter, "run_id": adopted.run_id}
    told = {**known, "adapter_dir": str(adopted.directory), **facts}
    emit(told, output, lambda: facts_table(told))
    again = sync_line(adopted.run_id, outputs)
    if adopted.adapter is None:
        note(f"{adopted.missing}; `{again}` registers {name} later")
        next_commands([again])
    elif output == "table":
        store = same_store(tracking_uri, outputs)
        next_commands(
            [
                f"raylora adapters show {adopted.adapter} --lineage{store}",
                f"raylora adapters promote {adopted.adapter}{store}",
            ]
        )


def facts_table(facts: Mapping[str, Any]) -> Table:
    """What is known of an adapter but its lineage, which `show --lineage` lists."""
    rows = {key: value for key, value in facts.items() if key != "lineage" and value != ""}
    return make_table(("key", "value"), rows.items())


def tags_of(facts: dict[str, Any]) -> dict[str, str]:
    known = {
        "raylora.base": facts["base"],
        "raylora.base_revision": facts["base_revision"],
        "raylora.rank": facts["r"],
        "raylora.adapter_sha256": facts["sha256"],
    }
    return {key: str(value) for key, value in known.items() if value is not None}
