"""Steps of fused trials and of one alone, in turns: `python -m benchmarks.sweep.core_growth JSON`.

Every trial runs the ordinary training loop. {"threads": N, "rows": {"64": FILE, ...}, "growth":
[1, 2, ...], "growth_tokens": N, "lengths": {"64": K, ...}, "rounds": N}; FILE has a row of so many
tokens. A round is measured after one that is not. Prints a JSON line a measurement:
{"what": "fused", "trials": K, "tokens": N, "seconds": S}, or "alone" for K steps one by one.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks.sweep.core_alone import join_group_of_one
from raylora.config.model_spec import ModelSpec
from raylora.config.places import cache
from raylora.config.train_spec import TrainSpec
from raylora.jobs.data.batches import MicroBatch, join
from raylora.jobs.data.examples import Example
from raylora.jobs.train.backend import TrainingBackend, make_backend
from raylora.jobs.train.checkpoint import Checkpoints
from raylora.jobs.train.loop import Setup, train
from raylora.jobs.train.loss import SupervisedLoss
from raylora.jobs.train.neftune import NoNoise
from raylora.jobs.train.observer import NullObserver
from raylora.jobs.train.parameter_groups import parameter_groups
from raylora.jobs.train.passes import OwnPasses, Passes
from raylora.jobs.train.prepare import prepare
from raylora.jobs.train.utilisation import Cost
from raylora.jobs.train.validation import NoValidation
from raylora.lora.attach import attach
from raylora.lora.base import compute_dtype, load_base
from raylora.lora.devices import pick
from raylora.lora.sources import fetch
from raylora.sweeps.fused.conductor import Conductor
from raylora.sweeps.fused.player import Player
from raylora.sweeps.fused.shared_passes import TrialPasses
from raylora.sweeps.fused.trial_bank import TrialBank

ENDLESS = 1_000_000
SPEC = TrainSpec.model_validate(
    {
        "workers": {"num_workers": 1},
        "training": {
            "max_steps": ENDLESS,
            "save_steps": ENDLESS,
            "global_batch_size": 1,
            "micro_batch_size": 1,
        },
    }
)


def main() -> None:
    """Growth, then each length."""
    told: dict[str, Any] = json.loads(sys.argv[1])
    join_group_of_one(told["threads"])
    rows = Rows({int(tokens): Path(file) for tokens, file in told["rows"].items()})
    with tempfile.TemporaryDirectory() as folder:
        alone = _alone(rows, Path(folder))
        together = _Together(rows, Path(folder))
        conductors = {k: together.conductor(k) for k in told["growth"]}
        fused = {k: _rounds_of(conductor) for k, conductor in conductors.items()}
        rows.tokens = told["growth_tokens"]
        for number in range(1 + told["rounds"]):
            for trials, act in fused.items():
                _time("fused", trials, rows.tokens, act, shown=number > 0)
        for tokens, trials in told["lengths"].items():
            rows.tokens = int(tokens)
            one_by_one = _times(trials, alone)
            for number in range(1 + told["rounds"]):
                _time("fused", trials, rows.tokens, fused[trials], shown=number > 0)
                _time("alone", trials, rows.tokens, one_by_one, shown=number > 0)


class Rows:
    """The same row in every step; of how many tokens can be changed between steps."""

    def __init__(self, files: Mapping[int, Path]) -> None:
        self._examples = {
            tokens: Example(**json.loads(file.read_text(encoding="utf-8").splitlines()[0]))
            for tokens, file in files.items()
        }
        self.tokens = min(files)
        self.total_steps = ENDLESS
        self.digest = "rows"

    def step(self, step: int, micro_batch_size: int) -> list[MicroBatch]:
        """See StepSource."""
        return [join([self._examples[self.tokens]])]

    def supervised_weight(self, step: int) -> float:
        """See StepSource."""
        return self._examples[self.tokens].supervised_weight


class _Together:
    """Conductors of trials that share a base."""

    def __init__(self, rows: Rows, folder: Path) -> None:
        self._rows = rows
        self._folder = folder
        self._bank = TrialBank(_base(), SPEC.lora)

    def conductor(self, trials: int) -> Conductor:
        conductor = Conductor(self._bank.passes)
        for number in range(trials):
            name = f"{trials}-{number}"
            conductor.join(name, lambda player, name=name: self._play(name, player))
        return conductor

    def _play(self, name: str, player: Player) -> None:
        backend = self._bank.enter(name, SPEC, TrialPasses(player, name))
        _train(backend, self._rows, self._folder / name)


class _Paced:
    """Passes of a trial that waits before each."""

    in_step = False

    def __init__(self, player: Player, passes: Passes) -> None:
        self._player = player
        self._passes = passes

    def gradients(
        self,
        inputs: Mapping[str, Tensor],
        scale: float,
        parameters: Sequence[nn.Parameter],
        seed: int,
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """See Passes."""
        self._player.ask(None)
        return self._passes.gradients(inputs, scale, parameters, seed)

    def evaluate(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See Passes."""
        return self._passes.evaluate(inputs)


def _alone(rows: Rows, folder: Path) -> Callable[[], object]:
    """A trial with a base of its own: each call is its next step, and goes up to the next pass."""

    def play(player: Player) -> None:
        base = _base()
        model = attach(base, SPEC.lora, SPEC.training.seed)
        own = OwnPasses(SupervisedLoss(model, base), prepare(model, base))
        named = dict(model.named_parameters())
        groups = parameter_groups(named, SPEC.lora, SPEC.training.weight_decay)
        dtype = compute_dtype(base)
        loss, passes = SupervisedLoss(model, base), _Paced(player, own)
        backend, _ = make_backend(loss, passes, groups, SPEC.training, SPEC.workers, dtype)
        _train(backend, rows, folder / "alone")

    player = Player(play)
    player.resume()
    return player.resume


def _train(backend: TrainingBackend, rows: Rows, folder: Path) -> None:
    setup = Setup(
        backend=backend,
        batches=rows,
        training=SPEC.training,
        validator=NoValidation(),
        noise=NoNoise(),
        cost=Cost(0.0, 0.0, 0.0),
        peak=1.0,
        micro_batch_size=1,
    )
    train(setup, NullObserver(), Checkpoints(folder, keep=2))


def _base() -> Any:
    return load_base(fetch(ModelSpec(), cache()), ModelSpec(), pick())


def _rounds_of(conductor: Conductor) -> Callable[[], object]:
    def act() -> None:
        for finished in conductor.round():
            raise RuntimeError(f"{finished.name} has ended") from finished.ended.error

    return act


def _times(count: int, act: Callable[[], object]) -> Callable[[], object]:
    def acts() -> None:
        for _ in range(count):
            act()

    return acts


def _time(what: str, trials: int, tokens: int, act: Callable[[], object], *, shown: bool) -> None:
    began = time.perf_counter()
    act()
    seconds = time.perf_counter() - began
    if shown:
        line = {"what": what, "trials": trials, "tokens": tokens, "seconds": seconds}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
