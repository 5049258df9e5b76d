"""From a spec to a job: paths settled, files and package bundled, submitted, remembered."""

import itertools
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from raylora.cluster import capacity, job_record
from raylora.cluster.bundle import SPEC_NAME, Bundle, build
from raylora.cluster.connect import Cluster
from raylora.cluster.job_info import JobInfo
from raylora.cluster.job_record import JobRecord
from raylora.cluster.jobs import RUN_ID, JobClient
from raylora.cluster.settled_paths import settle
from raylora.cluster.shipped_files import needs_hub, spec_files
from raylora.config.compose import read_resolved, resolved_yaml
from raylora.config.credentials import shown
from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.places import run_dir
from raylora.config.sweep_spec import SweepSpec
from raylora.config.train_spec import TrainSpec
from raylora.errors import NotFound, RayloraError

FINETUNE = "raylora.jobs.finetune"
SEARCH = "raylora.sweeps.search"
EVALUATE = "raylora.jobs.evaluate_adapters"
RERUN = "raylora.jobs.rerun"
OUTPUTS, TRACKING = "raylora.outputs", "raylora.tracking"
"""Of a job's metadata, beside those of `jobs.py`: where its run is written to and tracked."""
JobSpec = TrainSpec | EvaluateSpec
"""What a job can be submitted for; a SweepSpec is a TrainSpec."""
SpecT = TypeVar("SpecT", bound=TrainSpec | EvaluateSpec)
Spec_co = TypeVar("Spec_co", bound=TrainSpec | EvaluateSpec, covariant=True)
_SPECS: Mapping[str, type[JobSpec]] = {
    SEARCH: SweepSpec,
    EVALUATE: EvaluateSpec,
}
"""Of the programs that are given another spec than a TrainSpec."""


@dataclass(frozen=True)
class Submitted(Generic[Spec_co]):
    """A job that the cluster has accepted."""

    job_id: str
    run_id: str
    bundle: Bundle
    spec_type: type[Spec_co]

    def spec(self) -> Spec_co:
        """The spec as it was shipped: settled, data paths below the job's folder."""
        return read_resolved(self.bundle.working_dir / SPEC_NAME, self.spec_type)


def submit(
    client: JobClient,
    cluster: Cluster,
    spec: SpecT,
    *,
    run_id: str,
    base: Path,
    program: str = FINETUNE,
    config: str | None = None,
) -> Submitted[SpecT]:
    """Start a job, once it is sure that the cluster can ever hold it.

    run_id: made by the caller, so that the run has a name before anything else has heard of it.
    base: folder that relative paths in the spec start from. config: what stands after `raylora
    submit` for the same training, where the program says how to repeat it. Raises InvalidConfig,
    InsufficientResources, Unreachable, NotAuthorised.
    """
    settled = settle(spec, is_local=cluster.is_local, base=base)
    capacity.require(_demand(settled), client.nodes())
    files = spec_files(settled, base, is_local=cluster.is_local)
    bundle = build(resolved_yaml(settled), files)
    record = JobRecord(
        run_id=run_id,
        name=settled.name,
        program=program,
        args=(
            *(SPEC_NAME, "--run-id", run_id),
            *(("--config", config) if config else ()),
            *(("--commit", commit) if (commit := _git_commit(base)) else ()),
        ),
        working_dir=str(bundle.working_dir),
        package=str(bundle.package),
        outputs=settled.outputs,
        warm=_may_start_warm(settled),
        tracking=shown(settled.tracking.uri or ""),
    )
    job_record.write(record)
    return Submitted(_start(client, record, bundle, run_id), run_id, bundle, type(spec))


def resume(client: JobClient, job_id: str) -> Submitted[Any]:
    """Run an ended job again under the same run id: training goes on from its last checkpoint.

    Raises NotFound where this machine did not submit it, RayloraError while it still runs.
    """
    jobs = client.list()
    run_id = _run_of(job_id, jobs)
    of_run = [job for job in jobs if job.run_id == run_id]
    if running := [job.job_id for job in of_run if not job.state.terminal]:
        raise RayloraError(
            f"run {run_id} is still running as job {running[0]}",
            hint=f"raylora jobs logs -f {running[0]}",
        )
    record = job_record.read(run_id)
    if record is None:
        raise NotFound(
            f"nothing is known here of run {run_id}",
            hint="resume it where it was submitted: the spec and its files are kept there",
        )
    bundle = Bundle(Path(record.working_dir), Path(record.package))
    spec_type = _SPECS.get(record.program, TrainSpec)
    taken = {job.job_id for job in jobs}
    names = (f"{run_id}-r{attempt}" for attempt in itertools.count(1))
    new_id = next(name for name in names if name not in taken)
    return Submitted(_start(client, record, bundle, new_id), run_id, bundle, spec_type)


def run_folder(spec: TrainSpec, run_id: str) -> Path:
    """Return the folder of the run in the spec's outputs."""
    return run_dir(spec.outputs, spec.tracking.experiment, run_id).root


def _git_commit(folder: Path) -> str:
    """Of the repository that a folder is in, with -dirty where files differ; empty without one."""
    git = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    with suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run(
            [*git, "--match="], capture_output=True, text=True, timeout=5, check=False
        )
        return said.stdout.strip() if said.returncode == 0 else ""
    return ""


def _demand(spec: JobSpec) -> capacity.Demand:
    if isinstance(spec, EvaluateSpec):
        workers = spec.workers
        asked = {"CPU": workers.cpus_per_worker, "GPU": workers.gpus_per_worker}
        each = {name: size for name, size in asked.items() if size}
        return capacity.Demand(workers.num_workers, each)
    if isinstance(spec, SweepSpec):
        return capacity.demand_of_sweep(spec)
    return capacity.demand_of(spec.workers)


def _start(client: JobClient, record: JobRecord, bundle: Bundle, job_id: str) -> str:
    return client.submit(
        record.program,
        record.args,
        bundle,
        name=record.name,
        run_id=record.run_id,
        job_id=job_id,
        metadata={OUTPUTS: record.outputs, TRACKING: record.tracking},
        warm=record.warm,
    )


def _may_start_warm(spec: JobSpec) -> bool:
    return not (needs_hub(spec) or spec.workers.gpus_per_worker)


def _run_of(job_id: str, jobs: Sequence[JobInfo]) -> str:
    """Look the run up; a cluster that was restarted does not know the job, but the id says it."""
    for job in jobs:
        if job.job_id == job_id:
            run_id = job.metadata.get(RUN_ID)
            if run_id is None:
                raise NotFound(f"job {job_id} is no training job", hint="raylora jobs list")
            return run_id
    head, _, attempt = job_id.rpartition("-r")
    return head if head and attempt.isdigit() else job_id
