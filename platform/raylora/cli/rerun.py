"""`raylora rerun`: train a registered version again from its lineage, and compare."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from raylora.cli import live
from raylora.cli.options import (
    address_option,
    output_option,
    overrides_argument,
    tracking_option,
)
from raylora.cli.output import note
from raylora.cli.submit import announce, finish
from raylora.cli.tracked import store_uri
from raylora.cluster import job_record, submission
from raylora.cluster.connect import connect
from raylora.cluster.jobs import JobClient
from raylora.config.compose import load_train
from raylora.config.places import new_run_id
from raylora.config.train_spec import TrainSpec
from raylora.errors import NotFound
from raylora.tracking.adapters.lineage import lineage_of
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.adapters.version import Version


@click.command("rerun")
@click.argument("ref")
@overrides_argument
@address_option
@tracking_option
@output_option
def command(
    ref: str,
    overrides: tuple[str, ...],
    address: str | None,
    tracking_uri: str | None,
    outputs: str,
    output: str,
) -> None:
    """Train a registered version again from its lineage, and compare. REF is NAME@7.

    The rows must say what they said; KEY=VALUE says where they are now, such as
    data.train=rows.jsonl. Nothing is registered. Ends with exit code 1 where metrics or, on the
    same machine with one CPU worker, the adapter's bytes are others.
    """
    registry = Registry(store_uri(tracking_uri, outputs))
    version = registry.resolve(ref)
    spec = _spec(registry, version, overrides, outputs, tracking_uri)
    cluster = connect(address)
    client = JobClient(cluster)
    submitted = submission.submit(
        client,
        cluster,
        spec,
        run_id=new_run_id(),
        base=Path.cwd(),
        program=submission.RERUN,
        config=str(version),
    )
    note(f"training {version} again, as run {version.run_id} did")
    announce(submitted, cluster)
    finish(live.follow(client, submitted.job_id, output), submitted, output)


def _spec(
    registry: Registry,
    version: Version,
    overrides: Sequence[str],
    outputs: str,
    tracking_uri: str | None,
) -> TrainSpec:
    """The spec in the version's lineage, with this store, and its rows where they are here."""
    stored: dict[str, Any] | None = lineage_of(registry, version).facts["spec"]
    if stored is None:
        raise NotFound(
            f"the lineage of {version} has no spec: it was not trained by raylora",
            hint=f"raylora adapters show {version} --lineage",
        )
    stored["outputs"] = str(Path(outputs).absolute()) if "://" not in outputs else outputs
    stored["tracking"]["uri"] = tracking_uri
    record = job_record.read(version.run_id)
    if record is not None:
        for section, key in _sources(stored["data"]):
            shipped = Path(record.working_dir) / str(section[key])
            if section[key] is not None and shipped.exists():
                section[key] = str(shipped)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{version}.yaml"
        file.write_text(yaml.safe_dump(stored), encoding="utf-8")
        return load_train(str(file), overrides).spec


def _sources(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a spec names files: a section and its key."""
    for key in ("train", "validation", "chat_template"):
        yield data, key
    for part in data["mixture"]:
        yield part, "source"
