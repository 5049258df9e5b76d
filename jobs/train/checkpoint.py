"""Checkpoints of a training run: complete or absent, hashed, and free of pickle and world size.

A directory step-000025 holds
- state.safetensors: fp32 weights and Adam moments of the adapter, loss scale,
- progress.json: step, seed, digest of the data, losses and validations so far,
- raylora.json: sha256 and size of both.

No generator state is needed: what a step draws follows from the seed and the step.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from raylora.jobs.train.checkpoint_format import PROGRESS, STATE, folder_of, newest_first
from raylora.jobs.train.validation import Validation, best_of
from raylora.lora import atomic, manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far training is, and on what."""

    step: int
    """Optimizer steps done."""
    total_steps: int
    seed: int
    data_digest: str
    losses: list[float] = field(default_factory=list[float])
    """Of the latest steps, the last one at the end: what the watchdog and reports look back on."""
    validations: list[Validation] = field(default_factory=list[Validation])
    """All so far."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    path: Path

    def load(self) -> tuple[dict[str, Tensor], Progress]:
        """The state as a TrainingBackend takes it, and how far it is."""
        kept = json.loads((self.path / PROGRESS).read_text(encoding="utf-8"))
        kept["validations"] = [Validation(**validation) for validation in kept["validations"]]
        return load_file(self.path / STATE), Progress(**kept)


class Checkpoints:
    """The checkpoints of one run. One process writes; a reader sees whole ones only."""

    def __init__(self, directory: Path, keep: int) -> None:
        """Keep the newest `keep` and the best in `directory`, which is made when needed."""
        self._directory = directory
        self._keep = keep

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is or would be."""
        return folder_of(self._directory, step)

    def save(self, state: Mapping[str, Tensor], progress: Progress) -> Checkpoint:
        """Write a checkpoint, flushed to disk, then drop the oldest beyond `keep`.

        That of the best validation stays.
        """
        final = self.path(progress.step)
        with atomic.directory(final) as staged:
            save_file(dict(state), staged / STATE)
            (staged / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
            manifest.write(staged, {})
        best = best_of(progress.validations)
        for old in newest_first(self._directory)[self._keep :]:
            if best is None or old != self.path(best.step):
                shutil.rmtree(old)
        return Checkpoint(final)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose files match their hashes; None for a new run.

        Damaged ones are logged and deleted, so that their steps can be saved again.
        """
        for path in newest_first(self._directory):
            fault = manifest.find_fault(path)
            if fault is None:
                return Checkpoint(path)
            log.warning("checkpoint %s is damaged, trying the one before: %s", path, fault)
            shutil.rmtree(path)
        return None

    def of_step(self, step: int) -> Checkpoint | None:
        """The checkpoint of one step; None where it is gone or damaged, which is logged."""
        fault = manifest.find_fault(self.path(step))
        if fault is None:
            return Checkpoint(self.path(step))
        log.warning("the checkpoint of step %d cannot be used: %s", step, fault)
        return None
