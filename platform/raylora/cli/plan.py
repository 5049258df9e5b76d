"""`raylora plan`: what submit would start. Starts nothing, writes nothing."""

from dataclasses import asdict
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
from raylora.cluster.settled_paths import settle
from raylora.cluster.shipped_files import spec_files
from raylora.cluster.submission import FINETUNE, run_folder
from raylora.config import footprint
from raylora.config.compatibility import RULES
from raylora.config.compose import Resolved, load_train
from raylora.config.credentials import shown
from raylora.config.train_spec import TrainSpec
from raylora.errors import InsufficientResources, Unreachable
from raylora.tracking.location import DATABASE, SQLITE


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
            "num_workers": settled.workers.num_workers,
            "resources_per_worker": dict(demand.per_worker),
            "collectives": "nccl" if settled.workers.gpus_per_worker else "gloo",
            "backend": "deepspeed" if settled.workers.uses_deepspeed else "torch",
            "zero_stage": settled.workers.zero_stage if settled.workers.uses_deepspeed else 0,
        },
        "checked": [rule.name for rule in RULES],
        "files": [asdict(file) for file in files],
        "run_dir": str(run_folder(settled, "RUN_ID")),
        "tracking_uri": shown(settled.tracking.uri or default_store),
        "registers_as": settled.adapter_name,
        "memory": _memory(settled),
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


def _memory(spec: TrainSpec) -> dict[str, int] | None:
    """What one worker holds; None where the base is not on this machine."""
    folder = footprint.weights_folder(spec.model)
    return None if folder is None else footprint.measure(spec, folder).as_dict()


def _tables(resolved: Resolved[TrainSpec], plan: dict[str, Any]) -> RenderableType:
    workers, memory, cluster = plan["workers"], plan["memory"], plan["cluster"]
    each = capacity.amounts(workers["resources_per_worker"])
    where = "local, not running: submit starts it"
    if cluster:
        verdict = cluster["problem"] or "can hold the job"
        where = f"{cluster['address']}: {capacity.amounts(cluster['capacity'])}: {verdict}"
    facts = {
        "job": plan["entrypoint"],
        "workers": f"{_number(workers['num_workers'])}, each on one node with {each}",
        "sharding": _sharding(workers),
        "checked": f"{len(plan['checked'])} rules between keys (raylora config rules)",
        **_amounts(memory),
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


def _number(workers: int | list[int]) -> str:
    return str(workers) if isinstance(workers, int) else " to ".join(map(str, workers))


def _sharding(workers: dict[str, Any]) -> str:
    over = f"over {workers['collectives']}"
    if workers["backend"] == "torch":
        return f"none: each worker holds all, gradients are summed {over}"
    return f"ZeRO-{workers['zero_stage']} {over}"


def _amounts(memory: dict[str, int] | None) -> dict[str, str]:
    if memory is None:
        return {"memory": "unknown: the model is not on this machine yet"}
    parts = ("weights", "adapter", "optimizer", "activations")
    listed = ", ".join(f"{name} {memory[name] / 1e6:,.0f}" for name in parts)
    return {
        "base": f"{memory['parameters'] / 1e6:,.1f} M parameters",
        "trained": f"{memory['trained'] / 1e6:,.2f} M parameters",
        "memory": f"about {memory['total'] / 1e6:,.0f} MB a worker: {listed} (at most), "
        "and what Python and torch take",
    }
