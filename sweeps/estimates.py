"""What is known of a sweep's memory and rows before anything is loaded: a planner's input."""

from collections.abc import Sequence

from raylora.config.data_spec import Packing
from raylora.config.footprint import measure, weights_folder
from raylora.config.train_spec import TrainSpec
from raylora.jobs.data.survey import Surveyed
from raylora.sweeps.planner import Known, Memory

PROCESS_BYTES = 600_000_000
"""A worker before it has loaded a base: Python, Ray, torch, transformers, peft."""
BYTES_OF_A_TOKEN = 4
"""Of rows as JSON; English and code have 3 to 5."""


def known_of(trials: Sequence[TrainSpec], data: Sequence[Surveyed]) -> Known:
    """What the files of the base and of the rows tell; at least one trial."""
    return Known(_memory(trials), max(_tokens(trial, data) for trial in trials))


def _memory(trials: Sequence[TrainSpec]) -> Memory | None:
    """None where the base is not on this machine yet."""
    folder = weights_folder(trials[0].model)
    if folder is None:
        return None
    found = [measure(trial, folder) for trial in trials]
    shared = max(one.weights for one in found) + max(one.activations for one in found)
    return Memory(PROCESS_BYTES + shared, max(one.adapter + one.optimizer for one in found))


def _tokens(trial: TrainSpec, data: Sequence[Surveyed]) -> float:
    """Of a forward pass."""
    spec, training = trial.data, trial.training
    rows = min(training.micro_batch_size, training.global_batch_size / trial.workers.least)
    if spec.packing is Packing.BEST_FIT:
        return rows * (spec.pack_length or spec.max_length)
    training_rows = [part for part in data if part.context == "training"]
    count = sum(part.rows for part in training_rows) or 1
    mean = sum(part.size for part in training_rows) / count / BYTES_OF_A_TOKEN
    return rows * min(mean, spec.max_length)
