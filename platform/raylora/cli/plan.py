"""`raylora plan`: what submit would start. Starts nothing, writes nothing."""

import json
import struct
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from raylora.cli.options import (
    address_option,
    config_argument,
    output_option,
    overrides_argument,
)
from raylora.cli.output import emit, make_table, next_commands
from raylora.cluster import capacity
from raylora.cluster.bundle import list_files
from raylora.cluster.connect import connect
from raylora.cluster.jobs import nodes
from raylora.cluster.submission import FINETUNE, run_folder, settle, spec_files
from raylora.config.compose import Resolved, load_train
from raylora.config.model_spec import DType, ModelSource, ModelSpec, Quantization
from raylora.config.places import cache
from raylora.config.train_spec import TrainSpec
from raylora.errors import InsufficientResources, Unreachable
from raylora.tracking.location import DATABASE, SQLITE, shown

NF4_BYTES = 0.5625
"""Per weight: 4 bits and one fp32 scale for every 64 of them."""


@click.command("plan")
@config_argument
@overrides_argument
@address_option
@output_option
def command(config: str, overrides: tuple[str, ...], address: str | None, output: str) -> None:
    """Show what submit would start, and start nothing."""
    resolved = load_train(config, overrides)
    show(resolved, address, output)
    next_commands([f"raylora submit {' '.join((config, *overrides))}"])


def show(resolved: Resolved[TrainSpec], address: str | None, output: str) -> None:
    """Print the plan of a resolved spec; also what `submit --dry-run` does."""
    plan = make(resolved.spec, address, base=Path.cwd())
    emit(plan, output, lambda: _tables(resolved, plan))


def make(spec: TrainSpec, address: str | None, *, base: Path) -> dict[str, Any]:
    """Return the plan. Same errors as a submission for what can be known without one."""
    is_local = address is None
    settled = settle(spec, is_local=is_local, base=base)
    demand = capacity.demand_of(settled.workers)
    files = list_files(spec_files(settled, base, is_local=is_local))
    default_store = f"{SQLITE}{settled.outputs}/{DATABASE}"
    return {
        "spec": settled.model_dump(mode="json"),
        "entrypoint": f"python -m {FINETUNE} spec.yaml --run-id RUN_ID",
        "workers": {
            "num_workers": demand.workers,
            "resources_per_worker": dict(demand.per_worker),
            "collectives": "nccl" if settled.workers.gpus_per_worker else "gloo",
            "zero_stage": settled.workers.zero_stage,
        },
        "files": [asdict(file) for file in files],
        "run_dir": str(run_folder(settled, "RUN_ID")),
        "tracking_uri": shown(settled.tracking.uri or default_store),
        "registers_as": settled.adapter_name,
        "base": _base_size(settled.model),
        "cluster": _cluster(address, demand),
    }


def _cluster(address: str | None, demand: capacity.Demand) -> dict[str, Any] | None:
    try:
        cluster = connect(address, start=False)
    except Unreachable:
        # Without an address the local head may well be down: submit starts it.
        if address is not None:
            raise
        return None
    living = nodes(cluster)
    try:
        capacity.require(demand, living)
        problem = None
    except InsufficientResources as error:
        problem = error.message
    return {
        "address": cluster.dashboard_url,
        "nodes": len(living),
        "capacity": capacity.totals(living),
        "problem": problem,
    }


def _base_size(model: ModelSpec) -> dict[str, Any] | None:
    """Return parameters and bytes of the base's weights; None where it is not on this machine."""
    folder = _weights_folder(model)
    if folder is None:
        return None
    shapes = [shape for file in sorted(folder.glob("*.safetensors")) for shape in _shapes(file)]
    parameters = sum(prod(shape) for _, shape in shapes)
    width = 4 if model.dtype is DType.FP32 else 2
    packed = 0
    if model.quantization is Quantization.NF4:
        packed = sum(prod(shape) for name, shape in shapes if _is_linear(name, shape))
    weights = packed * NF4_BYTES + (parameters - packed) * width
    return {"parameters": parameters, "weight_bytes": int(weights)}


def _weights_folder(model: ModelSpec) -> Path | None:
    if model.source is ModelSource.PATH:
        folder = Path(model.id)
        return folder if folder.is_dir() else None
    for record in sorted((cache() / "models").glob("*/source.json")):
        if json.loads(record.read_text(encoding="utf-8")).get("id") == model.id:
            return record.parent
    return None


def _shapes(file: Path) -> list[tuple[str, list[int]]]:
    """Read names and shapes from a safetensors header: 8 bytes of length, then JSON."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    return [(name, entry["shape"]) for name, entry in header.items() if name != "__metadata__"]


def _is_linear(name: str, shape: list[int]) -> bool:
    return len(shape) == 2 and "embed" not in name and "lm_head" not in name


def _tables(resolved: Resolved[TrainSpec], plan: dict[str, Any]) -> RenderableType:
    workers, base, cluster = plan["workers"], plan["base"], plan["cluster"]
    each = capacity.amounts(workers["resources_per_worker"])
    size = "unknown: the model is not on this machine yet"
    if base:
        size = (
            f"{base['weight_bytes'] / 1e6:,.0f} MB of weights ({base['parameters'] / 1e6:,.1f} M "
            "parameters) in each worker; activations and optimizer come on top"
        )
    where = "local, not running: submit starts it"
    if cluster:
        verdict = cluster["problem"] or "can hold the job"
        where = f"{cluster['address']}: {capacity.amounts(cluster['capacity'])}: {verdict}"
    facts = {
        "job": plan["entrypoint"],
        "workers": f"{workers['num_workers']}, each on one node with {each}",
        "sharding": f"ZeRO-{workers['zero_stage']} over {workers['collectives']}",
        "base": size,
        "run folder": plan["run_dir"],
        "tracking": plan["tracking_uri"],
        "registers": f"{plan['registers_as']}, a new version",
        "cluster": where,
    }
    shipped = [(file["key"], file["source"], file["size"]) for file in plan["files"]]
    return Group(
        Text(resolved.to_yaml()),
        make_table(("would start", ""), facts.items()),
        make_table(("shipped for", "file", "bytes"), shipped) if shipped else Text("no files"),
    )
