"""`raylora adapters merge | combine`: adapters added to their base, and to each other."""

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from raylora.cli.adapters_files import tags_of, tell
from raylora.cli.child import run_program
from raylora.cli.options import output_option, tracking_option
from raylora.cli.output import emit, next_commands
from raylora.cli.tracked import store_uri
from raylora.config.compose import load_train
from raylora.config.model_spec import ModelSpec
from raylora.config.places import cache
from raylora.config.train_spec import TrackingSpec
from raylora.errors import InvalidConfig, NotFound, Problem
from raylora.tracking.adapters.adoption import adopt
from raylora.tracking.adapters.lineage import lineage_of
from raylora.tracking.adapters.reference import parse_name
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.adapters.version import Version

MERGE = "raylora.jobs.merge"
COMBINE = "raylora.jobs.combine"
METHODS = ("linear", "ties", "dare_linear", "dare_ties")

config_option = click.option(
    "--config",
    metavar="CONFIG",
    help="Preset or YAML file whose model is the base. Without it: the one it was trained on.",
)


@click.command(name="merge")
@click.argument("ref")
@click.argument("directory", type=click.Path(path_type=Path))
@config_option
@tracking_option
@output_option
def merge_command(
    ref: str,
    directory: Path,
    config: str | None,
    tracking_uri: str | None,
    outputs: str,
    output: str,
) -> None:
    """Write a version melted into its base to a new DIRECTORY, as one model.

    It is read again from disk and must give the logits of base and adapter, or nothing is left.
    """
    registry = Registry(store_uri(tracking_uri, outputs))
    version = registry.resolve(ref)
    model = _base(registry, version, config)
    files = registry.download(version, cache() / "adapters")
    arguments = [model.model_dump_json(), str(files), str(directory.absolute())]
    arguments.append(f"--version={version}")
    emit(run_program(MERGE, arguments, needed_for="merging an adapter"), output)
    if output == "table":
        next_commands([f"raylora plan quickstart model.source=path model.id={directory}"])


@click.command(name="combine")
@click.argument("refs", nargs=-1, required=True, metavar="REF REF ...")
@click.option("--name", required=True, help="Name that it is registered under.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="linear",
    show_default=True,
    help="PEFT's way of adding up.",
)
@click.option("--weights", help="One number a REF, such as 0.7,0.3. Without it: equal shares.")
@click.option(
    "--density",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Share of the values that ties and dare keep.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what dare drops.")
@config_option
@tracking_option
@output_option
def combine_command(
    refs: tuple[str, ...],
    name: str,
    method: str,
    weights: str | None,
    density: float,
    seed: int,
    config: str | None,
    tracking_uri: str | None,
    outputs: str,
    output: str,
) -> None:
    """Add up adapters of one base and rank, and register the sum with its parents."""
    if len(refs) < 2:
        raise click.UsageError("name two versions or more; `raylora adapters list` shows them")
    parse_name(name)
    shares = _shares(weights, len(refs))
    registry = Registry(store_uri(tracking_uri, outputs))
    parents = [registry.resolve(ref) for ref in refs]
    how = {"method": method, "weights": shares, "density": density, "seed": seed}
    lineage = {"parents": [str(parent) for parent in parents], "combined": how}
    model = _base(registry, parents[0], config)
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "adapter"
        files = [str(registry.download(parent, cache() / "adapters")) for parent in parents]
        arguments = [model.model_dump_json(), str(into), *files, f"--method={method}"]
        arguments += [f"--weight={share}" for share in shares]
        arguments += [f"--density={density}", f"--seed={seed}"]
        arguments.append(f"--lineage={json.dumps(lineage | _of_the_base(registry, parents[0]))}")
        facts = run_program(COMBINE, arguments, needed_for="combining adapters")
        tags = tags_of(facts) | {"raylora.parents": ",".join(str(parent) for parent in parents)}
        tracking = TrackingSpec(uri=tracking_uri)
        adopted = adopt(tracking, outputs, name, into, params=lineage, tags=tags)
    tell(adopted, name, facts, tracking_uri, outputs, output)


def _base(registry: Registry, version: Version, config: str | None) -> ModelSpec:
    """The model of a configuration, or of the spec that the version was trained by."""
    if config is not None:
        return load_train(config).spec.model
    spec: dict[str, Any] | None = lineage_of(registry, version).facts["spec"]
    if spec is None:
        raise NotFound(
            f"the lineage of {version} does not say where its base comes from",
            hint="name a configuration whose model is the base: --config CONFIG",
        )
    return ModelSpec.model_validate_json(json.dumps(spec["model"]))


def _of_the_base(registry: Registry, parent: Version) -> dict[str, Any]:
    """What a combination has from its parents: how prompts are written."""
    facts = lineage_of(registry, parent).facts
    data = facts["data"] or {}
    return {
        "chat_template_sha256": facts["chat_template_sha256"],
        "data": {"system_prompt": data.get("system_prompt")},
    }


def _shares(weights: str | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    try:
        shares = [float(part) for part in weights.split(",")]
    except ValueError:
        shares = []
    if len(shares) != count:
        message = f"found {weights!r}, for {count} adapters"
        raise InvalidConfig([Problem("--weights", message, f"Write {count} numbers: 0.7,0.3.")])
    return shares
