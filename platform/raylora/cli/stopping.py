"""Stopping a job so that all agree: Ray, the command line and the tracking store."""

from pathlib import Path

from raylora.cli.output import note
from raylora.cluster.job_info import JobInfo
from raylora.cluster.jobs import JobClient
from raylora.cluster.submission import OUTPUTS, TRACKING
from raylora.errors import RayloraError
from raylora.tracking.spooling.closing import close


def stop_job(client: JobClient, job_id: str) -> JobInfo:
    """Stop a job and wait until it has ended; its run is KILLED then, or it is said why not yet.

    Raises JobFailed where it does not end.
    """
    job = client.stop(job_id)
    if not job.state.ok:
        close_run(job)
    return job


def close_run(job: JobInfo) -> None:
    """Have the tracking store call the run of a job that was ended KILLED, or say why not yet."""
    outputs = job.metadata.get(OUTPUTS)
    if job.run_id and outputs:
        try:
            close(Path(outputs), job.run_id, job.metadata.get(TRACKING, ""))
        except RayloraError as error:
            note(f"the tracking store may still call run {job.run_id} RUNNING: {error.message}")
            note(f"  mend it:  raylora runs sync {job.run_id} --outputs {outputs}")
