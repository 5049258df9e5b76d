"""Names of the tags by which MLflow knows a sweep and its trials, and what their values are.

The sweep's own run is the parent, each trial a run nested below it.
"""

from typing import Any

from raylora.config.sweep_spec import SearchSpec

PARENT = "mlflow.parentRunId"
"""On a trial: MLflow's id of the sweep's run. By it MLflow shows one run below another."""
TRIAL = "raylora.trial"
"""The trial's name, such as t01."""
STATE = "raylora.trial_state"
"""A TrialStatus."""
ERROR = "raylora.trial_error"
"""Why it failed."""
SETTINGS = "raylora.settings"
"""JSON: by key, what differs from the sweep's base."""
STEP = "raylora.trial_step"
"""Optimizer steps done at its last report."""
SUBMIT = "raylora.submit"
"""The line `raylora submit ...` that trains the same; empty where none does."""
COPIES = "raylora.copies"
"""JSON: from which trial of its population, at which step and with which settings it went on."""
MODE = "raylora.trial_mode"
"""fused or isolated."""
ADAPTER_BYTES = "raylora.adapter_bytes"
"""Size of its adapter_model.safetensors."""

SWEEP = "raylora.sweep"
"""On the sweep's run: JSON, what `search_facts` makes."""
BEST_TRIAL = "raylora.best_trial"
BEST_ADAPTER = "raylora.best_adapter"
"""The version registered from it, such as name@7; set when it is registered."""

REQUEST = "raylora.request."
"""On the sweep's run, with the request's id behind it: JSON, what a command asks of the driver."""
ANSWER = "raylora.answer."
"""With the same id: what the driver made of it."""


def search_facts(search: SearchSpec, trials: int) -> dict[str, Any]:
    """The value of SWEEP. trials: how many there will be; a grid's spec may leave that out."""
    return {
        "metric": search.metric,
        "mode": search.mode.value,
        "trials": trials,
        "searcher": search.searcher.value,
        "scheduler": search.scheduler.value,
    }
