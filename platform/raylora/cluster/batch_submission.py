"""From a BatchSpec to a job: where it reads and writes, and what travels with it."""

from collections.abc import Mapping
from pathlib import Path

from raylora.cluster.bundle import SPEC_NAME, Bundle, build
from raylora.cluster.jobs import JobClient
from raylora.cluster.settled_paths import absolute, settle
from raylora.cluster.shipped_files import NOT_SHIPPED
from raylora.config.batch_spec import BatchSpec
from raylora.config.compose import resolved_yaml
from raylora.config.model_spec import ModelSource
from raylora.errors import InvalidConfig, Problem

PROGRAM = "raylora.jobs.batch.run"


def submit_batch(
    client: JobClient, spec: BatchSpec, *, is_local: bool, base: Path, env: Mapping[str, str]
) -> str:
    """Start the job; its id. On this machine files are used in place, elsewhere the input travels.

    Raises InvalidConfig, Unreachable, NotAuthorised.
    """
    settled, bundle = bundle_of(spec, is_local=is_local, base=base)
    serving = settled.serving
    return client.submit(
        PROGRAM,
        [SPEC_NAME],
        bundle,
        name=f"batch {Path(spec.output).name}",
        env=env,
        warm=serving.model.source is not ModelSource.HUB and not serving.gpus_per_replica,
    )


def bundle_of(spec: BatchSpec, *, is_local: bool, base: Path) -> tuple[BatchSpec, Bundle]:
    """The spec with its paths settled, and what travels."""
    updates: dict[str, object] = {"serving": settle(spec.serving, is_local=is_local, base=base)}
    files: dict[str, Path] = {}
    in_place = spec.input.startswith(NOT_SHIPPED) or "://" in spec.input
    if is_local:
        updates["output"] = absolute(spec.output, base)
        if not in_place:
            updates["input"] = absolute(spec.input, base)
    else:
        if not Path(spec.output).is_absolute():
            raise InvalidConfig([_scratch(spec.output)])
        path = Path(absolute(spec.input, base))
        if not in_place and (path.exists() or not Path(spec.input).is_absolute()):
            files["input"] = path
    settled = spec.model_copy(update=updates)
    return settled, build(resolved_yaml(settled), files)


def _scratch(output: str) -> Problem:
    return Problem(
        "output",
        f"{output!r} is relative, and the job runs on another machine",
        "Write an absolute path on storage that all its nodes share",
    )
