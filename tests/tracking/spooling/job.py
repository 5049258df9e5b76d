"""What the processes of a job leave in the folder of a run."""

from pathlib import Path

from raylora.tracking.spooling.spooled import SpooledRun, attach
from raylora.tracking.spooling.tracked import TrackedRun

RUN = "20260101-120000-a1b2c3"


def adapter_of(run: TrackedRun, outputs: Path, weights: bytes = b"weights") -> Path:
    folder = outputs / "experiments" / "tests" / "runs" / run.run_id / "artifacts" / "adapter"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def worker_of(run: TrackedRun, outputs: Path) -> SpooledRun:
    return attach(outputs / "experiments" / "tests" / "runs" / run.run_id / "tracking", run.run_id)


def end_of_process(run: TrackedRun) -> None:
    """What a killed process leaves: nobody sends its spool."""
    run._courier.withdraw(run._sent)
