"""The finished adapter of a run, and what it must give when it is loaded again."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import Tensor

import raylora
from raylora.config.data_spec import DataSpec
from raylora.jobs.assignment import PROBE, Assignment, spec_sha256
from raylora.jobs.data.training_data import TrainingData
from raylora.jobs.probe import Recording
from raylora.jobs.provenance import provenance
from raylora.jobs.train.outcome import Outcome
from raylora.jobs.train.route import ALONE
from raylora.lora import atomic
from raylora.lora.attach import save_adapter
from raylora.lora.sources import LocalModel

DATA_REPORT = "data.json"
"""In the run's metadata: what became of the rows."""


@dataclass(frozen=True)
class Trained:
    """An adapter in memory."""

    model: PeftModel
    local: LocalModel
    data: TrainingData
    recording: Recording
    """What the model gives with it."""
    tokenizer: Any
    """That rows were rendered with."""
    name: str = ALONE
    """In the model."""
    state: Mapping[str, Tensor] | None = None
    """Trained tensors by parameter name, where they are not those in the model."""


def save_trained(assignment: Assignment, trained: Trained, outcome: Outcome) -> None:
    """Write adapter, probe and report of the data into the run's folders; the first worker's."""
    spec, places = assignment.spec, assignment.places
    template = trained.tokenizer.chat_template
    trained.recording.write(places.metadata / PROBE)
    write_json(places.metadata / DATA_REPORT, trained.data.report().as_dict())
    shutil.rmtree(places.adapter, ignore_errors=True)  # of an attempt that ended after this point
    save_adapter(
        trained.model,
        places.adapter,
        trained.local,
        {
            "run_id": assignment.run_id,
            "mlflow_run_id": assignment.mlflow_run_id,
            "spec_sha256": spec_sha256(spec),
            "data": _lineage(spec.data, trained.data.digest),
            "quantization": spec.model.quantization.value,
            "steps": outcome.steps,
            "kept_step": outcome.kept_step,
            "raylora": raylora.__version__,
            **provenance(spec, str(template or "")),
        },
        name=trained.name,
        state=trained.state,
        chat_template=template if spec.data.chat_template else None,
    )


def write_json(path: Path, content: object) -> None:
    """For people and programs to read, complete or not at all."""
    atomic.write_text(path, json.dumps(content, indent=2) + "\n")


def _lineage(data: DataSpec, digest: str) -> dict[str, str | None]:
    return {"source": data.train_label, "sha256": digest, "system_prompt": data.system_prompt}
