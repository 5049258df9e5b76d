"""Checkpoints of a training run: complete or absent, hashed, and free of pickle and world size.

A directory step-000025 holds
- state.safetensors: fp32 weights and Adam moments of the adapter,
- progress.json: step, seed and digest of the data,
- raylora.json: sha256 and size of both.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from raylora.lora import atomic, manifest

STATE = "state.safetensors"
PROGRESS = "progress.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far training is, and on what."""

    step: int
    """Optimizer steps done."""
    total_steps: int
    seed: int
    data_digest: str


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    path: Path

    def load(self) -> tuple[dict[str, Tensor], Progress]:
        """The state as ShardedModel.load_state takes it, and how far it is."""
        progress = Progress(**json.loads((self.path / PROGRESS).read_text(encoding="utf-8")))
        return load_file(self.path / STATE), progress


class Checkpoints:
    """The checkpoints of one run. One process writes; a reader sees whole ones only."""

    def __init__(self, directory: Path, keep: int) -> None:
        """Keep the newest `keep` in `directory`, which is made when needed."""
        self._directory = directory
        self._keep = keep

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is or would be."""
        return self._directory / f"step-{step:06d}"

    def save(self, state: Mapping[str, Tensor], progress: Progress) -> Checkpoint:
        """Write a checkpoint, flushed to disk, then drop the oldest beyond `keep`."""
        final = self.path(progress.step)
        with atomic.directory(final) as staged:
            save_file(dict(state), staged / STATE)
            (staged / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
            manifest.write(staged, {})
        for old in self._newest_first()[self._keep :]:
            shutil.rmtree(old)
        return Checkpoint(final)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose files match their hashes; None for a new run.

        Damaged ones are logged and deleted, so that their steps can be saved again.
        """
        for path in self._newest_first():
            fault = manifest.find_fault(path)
            if fault is None:
                return Checkpoint(path)
            log.warning("checkpoint %s is damaged, trying the one before: %s", path, fault)
            shutil.rmtree(path)
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self._directory.glob("step-*"), reverse=True)
