"""What the processes of one run pass to each other. Light: torch is for those who compute."""

import hashlib
import os
from dataclasses import dataclass

from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.model_spec import ModelSource
from raylora.config.places import RunPlaces
from raylora.config.spec import Spec
from raylora.config.train_spec import TrainSpec

PROBE = "probe.safetensors"
"""In the run's metadata: logits of the trained model, for the check of the saved adapter."""

EVALUATION = "evaluation"
"""In the run's artifacts: what the held-out rows were answered with."""

BASE = "base"
ADAPTER = "adapter"
"""The two subjects of an evaluation."""

HELD_OUT = {ADAPTER: "heldout_", BASE: "heldout_base_"}
"""Before the names of their scores among the run's metrics."""


@dataclass(frozen=True)
class Assignment:
    """What a worker and a judge of the run are given."""

    spec: TrainSpec
    run_id: str
    mlflow_run_id: str
    tracking_uri: str
    places: RunPlaces


def make_folders(places: RunPlaces) -> None:
    """Have the folders that must be there when a run begins."""
    for folder in places.working:
        folder.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class Assessment:
    """A whole adapter that gives the trained model's logits, and its scores."""

    base_revision: str
    data_sha256: str
    adapter_sha256: str
    r: int
    logit_difference: float
    """Mean, between the trained model and the reloaded adapter."""
    scores: dict[str, dict[str, float]]
    """By subject and metric; empty where the spec names no held-out rows."""


def spec_sha256(spec: Spec) -> str:
    """Identify a resolved spec, whatever its file looked like."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()


def enter(spec: TrainSpec | EvaluateSpec) -> None:
    """Set up the environment of a process that is about to import torch and transformers."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Without a fixed workspace cuBLAS refuses deterministic mode; it is read when CUDA starts.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    if spec.model.source is not ModelSource.HUB:
        os.environ["HF_HUB_OFFLINE"] = "1"
