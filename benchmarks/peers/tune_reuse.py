"""Ray Tune with reuse_actors over raylora's own training loop, a base in each actor.

    python -m benchmarks.peers.tune_reuse settings.json

An actor loads the base once and trains one trial after another, each alone. Settings: {"spec": a
TrainSpec, "trials": [{"lora.r": 8, ...}, ...], "report_steps": N, "scheduler": null or
{"grace_period": N, "reduction_factor": N}, "folder": DIR}. Prints {"trials": [...]} at the end.
RAY_ADDRESS names the cluster. Like a sweep's driver, this one imports no torch.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from raylora.config.sweep_rules import with_settings
from raylora.config.train_spec import TrainSpec

STEP = "step"
LOSS = "loss"


class ReusedTrial(tune.Trainable):
    """Each step of Tune's goes up to the trial's next report."""

    def setup(self, config: dict[str, Any]) -> None:
        """Load the base, which all trials of this actor share."""
        # Read when torch and transformers are imported; raylora's workers have the same.
        os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
        from benchmarks.sweep.core_alone import Bench, join_group_of_one

        join_group_of_one(threads=1)
        self._bench = Bench(_spec_of(config).model)
        self._begin(config)

    def step(self) -> dict[str, Any]:
        """Train to the next report."""
        from raylora.sweeps.fused.player import Asked

        asked = self._player.resume()
        self._waits = isinstance(asked, Asked)
        if isinstance(asked, Asked):
            return {**self._reported, "done": False}
        if asked.error is not None:
            raise asked.error
        return {**self._reported, "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Train another trial on the same base."""
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """End the trial where it stands."""
        from raylora.sweeps.fused.player import Stopped

        if self._waits:
            self._player.resume(Stopped())
            self._waits = False

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The loop writes its own."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """No trial is paused here."""

    def _begin(self, config: dict[str, Any]) -> None:
        from benchmarks.sweep.core_alone import Telling
        from raylora.sweeps.fused.player import Player

        spec = _spec_of(config)
        every, last = config["report_steps"], spec.training.max_steps
        checkpoints = Path(config["folder"]) / self.trial_id
        self._reported: dict[str, Any] = {}
        self._waits = False

        def play(player: Player) -> None:
            def tell(step: int, loss: float) -> None:
                self._reported = {STEP: step, LOSS: loss}
                if step % every == 0 and step != last:
                    player.ask(None)

            self._bench.train(spec, Telling(tell), checkpoints)

        self._player = Player(play)


def main() -> None:
    """Run the trials on the cluster."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    ray.init(log_to_driver=False, logging_level="error")
    shared = {key: settings[key] for key in ("spec", "report_steps", "folder")}
    results = tune.Tuner(
        tune.with_resources(ReusedTrial, {"CPU": 1}),
        param_space={**shared, "changed": tune.grid_search(settings["trials"])},
        tune_config=tune.TuneConfig(
            metric=LOSS, mode="min", scheduler=_scheduler(settings), reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=settings["folder"], verbose=0),
    ).fit()
    found: list[dict[str, Any]] = []
    for result in results:
        if result.error is not None:
            raise result.error
        metrics = result.metrics or {}
        found.append(
            {
                "settings": (result.config or {})["changed"],
                STEP: metrics[STEP],
                LOSS: metrics[LOSS],
            }
        )
    sys.stdout.write(json.dumps({"trials": found}) + "\n")


def _spec_of(config: dict[str, Any]) -> TrainSpec:
    spec = TrainSpec.model_validate_json(json.dumps(config["spec"]))
    return with_settings(spec, config["changed"])


def _scheduler(settings: dict[str, Any]) -> TrialScheduler:
    if settings["scheduler"] is None:
        return FIFOScheduler()
    return AsyncHyperBandScheduler(
        time_attr=STEP, max_t=settings["spec"]["training"]["max_steps"], **settings["scheduler"]
    )


if __name__ == "__main__":
    main()
