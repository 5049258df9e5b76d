import math

from raylora.config.training_spec import TrainingSpec
from raylora.jobs.train.validation import Validation, best_of, is_out_of_patience


def best_step(*losses: float) -> int | None:
    best = best_of(history(*losses))
    return None if best is None else best.step


def history(*losses: float) -> list[Validation]:
    return [Validation(10 * i, loss) for i, loss in enumerate(losses, 1)]


def test_the_best_is_the_first_of_the_lowest():
    assert best_step(3, 1, 2, 1) == 20
    assert best_step() is None


def test_a_loss_that_is_no_number_is_never_the_best():
    assert best_step(math.nan, 2) == 20
    assert best_step(math.nan) is None


def test_patience_counts_validations_since_the_best():
    training = TrainingSpec(early_stopping_patience=2)
    assert not is_out_of_patience(history(3, 1, 2), training)
    assert is_out_of_patience(history(3, 1, 2, 1), training)
    assert not is_out_of_patience(history(3, 1, 2, 0.5), training)
    assert not is_out_of_patience([], training)


def test_without_patience_a_run_never_stops_early():
    assert not is_out_of_patience(history(1, 2, 3, 4, 5), TrainingSpec())
