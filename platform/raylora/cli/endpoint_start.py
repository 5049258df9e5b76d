"""An endpoint that is started as a Ray Job: whether it can be, and what the job says meanwhile."""

from pathlib import Path

from raylora.cli.event_text import plain
from raylora.cli.output import note
from raylora.cli.progress import Outcome, Progress
from raylora.cli.submit import require_success
from raylora.cluster import applications, capacity, events
from raylora.cluster.applications import ServeStatus
from raylora.cluster.bundle import SPEC_NAME, build
from raylora.cluster.capacity import Demand
from raylora.cluster.connect import Cluster
from raylora.cluster.events import ErrorEvent
from raylora.cluster.jobs import JobClient
from raylora.cluster.settled_paths import settle
from raylora.config.compose import resolved_yaml
from raylora.config.model_spec import ModelSource
from raylora.config.places import cache
from raylora.config.serve_spec import ServeSpec
from raylora.errors import InsufficientResources, RayloraError

PROGRAM_UP = "raylora.serve.up"


def start_endpoint(spec: ServeSpec, cluster: Cluster) -> None:
    """Start the endpoint and wait until it answers; JobFailed where it does not."""
    client = JobClient(cluster)
    refuse_other_endpoint(spec, applications.status(cluster))
    require_room(spec, client)
    settled = settle(spec, is_local=cluster.is_local, base=Path.cwd())
    job_id = client.submit(
        PROGRAM_UP,
        [SPEC_NAME],
        build(resolved_yaml(settled)),
        name=spec.name,
        env=environment(spec, cluster),
        warm=spec.model.source is not ModelSource.HUB and not spec.gpus_per_replica,
    )
    follow_job(client, job_id)


def refuse_other_endpoint(spec: ServeSpec, running: ServeStatus) -> None:
    """Serve has one address a cluster and keeps it, so another one would be ignored in silence."""
    if running.host is None:
        return
    here, wanted = f"{running.host}:{running.port}", f"{spec.host}:{spec.port}"
    names = [app.name for app in running.applications if not app.state.is_leaving]
    if here != wanted:
        raise RayloraError(
            f"Ray Serve already runs on this cluster at {here} "
            f"({', '.join(names) or 'no application'}), and the spec says {wanted}",
            hint=f"raylora serve down first, or host={running.host} port={running.port}",
        )
    if others := [name for name in names if name != spec.name]:
        raise RayloraError(
            f"{here} is taken by the application {others[0]}, and the spec's name is {spec.name}",
            hint=f"raylora serve down {others[0]} first, or name={others[0]} to replace it",
        )


def require_room(spec: ServeSpec, client: JobClient) -> None:
    """Raise InsufficientResources where the cluster is too small for the replicas."""
    asked = {"CPU": spec.cpus_per_replica, "GPU": spec.gpus_per_replica}
    per_replica = {name: size for name, size in asked.items() if size}
    try:
        capacity.require(Demand(spec.num_replicas, per_replica), client.nodes())
    except InsufficientResources as error:
        raise InsufficientResources(
            error.message,
            hint="lower num_replicas, cpus_per_replica or gpus_per_replica, or use a larger "
            "cluster (--address)",
        ) from error


def environment(spec: ServeSpec, cluster: Cluster) -> dict[str, str]:
    """Variables of the replicas, which have the job's: its own cache, no model hub."""
    offline = {} if spec.model.source is ModelSource.HUB else {"HF_HUB_OFFLINE": "1"}
    own = {"RAYLORA_CACHE": str(cache())} if cluster.is_local else {}
    return {**offline, **own}


def follow_job(client: JobClient, job_id: str) -> None:
    """Show the job's stages; JobFailed with its error or the end of its log where it fails."""
    progress = Progress()
    try:
        for line in client.follow(job_id):
            event = events.parse(line)
            if event is None:
                progress.tail.append(line)
                continue
            progress.see(event)
            if not isinstance(event, ErrorEvent):
                note(plain(event))
    except KeyboardInterrupt:
        note(f"\njob {job_id} goes on: raylora serve status shows it, raylora serve down ends it")
        raise
    require_success(Outcome(client.status(job_id), progress))
