"""Population based training: what its trials may change on the way, and what it cannot do."""

from collections.abc import Iterator

from raylora.config.fused_rules import Sharing, sharing
from raylora.config.search_space import keys_in
from raylora.config.sweep_spec import LOSS, Execution, Scheduler, Searcher, SearchSpec
from raylora.config.train_spec import TrainSpec
from raylora.errors import Problem

CHANGEABLE = (
    "lora.lora_dropout",
    "training.learning_rate",
    "training.lr_scheduler",
    "training.warmup_ratio",
    "training.decay_ratio",
    "training.weight_decay",
    "training.max_grad_norm",
    "training.adam_beta1",
    "training.adam_beta2",
    "training.adam_epsilon",
)
"""With another value of these, training goes on from the same weights, moments and rows. A rank is
copied with the weights and never changed."""


def is_changeable(name: str) -> bool:
    """Whether trials may change an entry of the space on the way."""
    return all(key in CHANGEABLE for key in keys_in(name))


def interval(base: TrainSpec, search: SearchSpec) -> int:
    """Optimizer steps between looks: the checkpoints at which the metric is known."""
    training = base.training
    if search.metric == LOSS or training.validation_steps is None:
        return training.save_steps
    return training.validation_steps


def problems(base: TrainSpec, search: SearchSpec, source: str) -> Iterator[Problem]:
    """Everything about a population that cannot be."""
    if search.scheduler is not Scheduler.PBT:
        return
    if search.searcher is Searcher.TPE:
        yield Problem(
            "sweep.searcher",
            "tpe learns from settings that stay as they are, and pbt changes them on the way",
            "Write sweep.searcher=random.",
            source,
        )
    if not any(is_changeable(name) for name, d in search.space.items() if d.times is None):
        yield Problem(
            "sweep.space",
            "pbt has nothing to change on the way",
            f"Search over at least one of {', '.join(CHANGEABLE)}.",
            source,
        )
    if search.trials is not None and not 2 <= search.trials <= (search.at_once or search.trials):
        yield Problem(
            "sweep.trials",
            f"a population trains at the same time, and {search.trials} trials "
            + ("cannot learn from each other" if search.trials < 2 else "are more than at_once"),
            "Write 4 or more trials, and leave sweep.at_once out.",
            source,
        )
    yield from _looks(base, search, source)
    if sharing(base, search) is Sharing.SOME:
        yield Problem(
            "sweep.space",
            "some of these trials would share a base and others not, and a population passes "
            "weights among all",
            f"Leave out what cannot be fused, or write sweep.execution={Execution.ISOLATED}.",
            source,
        )


def _looks(base: TrainSpec, search: SearchSpec, source: str) -> Iterator[Problem]:
    training, steps = base.training, interval(base, search)
    key = "training.save_steps" if steps == training.save_steps else "training.validation_steps"
    if training.max_steps is not None and steps >= training.max_steps:
        yield Problem(
            key,
            f"pbt looks at its trials every {steps} steps, and they have {training.max_steps}",
            "Make it a fraction of training.max_steps.",
            source,
        )
    if search.metric == LOSS and steps % training.logging_steps:
        yield Problem(
            key,
            f"{steps} is no multiple of training.logging_steps={training.logging_steps}, at which "
            "the loss is known",
            "Make it a multiple.",
            source,
        )
