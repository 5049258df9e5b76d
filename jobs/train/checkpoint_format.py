"""What a checkpoint is on disk. Light: programs without torch read and write them too."""

from pathlib import Path

from raylora.lora import manifest

STATE = "state.safetensors"
"""fp32 weights and Adam moments of what is trained, by "PART/NAME"."""
PROGRESS = "progress.json"

WEIGHT = "weight/"
ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")
ADAM_STEPS = "optimizer/steps"
LOSS_SCALE = "optimizer/loss_scale"


def folder_of(directory: Path, step: int) -> Path:
    """Where the checkpoint of a step is or would be."""
    return directory / f"step-{step:06d}"


def newest_first(directory: Path) -> list[Path]:
    """Folders of checkpoints, whole or not."""
    return sorted(directory.glob("step-*"), reverse=True)


def newest_whole(directory: Path) -> Path | None:
    """The newest checkpoint whose files match their hashes."""
    whole = (path for path in newest_first(directory) if manifest.find_fault(path) is None)
    return next(whole, None)
