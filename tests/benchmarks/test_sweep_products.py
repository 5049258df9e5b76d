from pathlib import Path

import pytest
from benchmarks.bars.chat_rows import ChatRows
from benchmarks.sweep.products import Step


def test_a_step_has_the_tokens_and_labels_of_its_rows():
    rows = ChatRows(Path("a"), Path("b"), lengths=(32, 40, 56, 64), supervised=(8, 10, 14, 16))
    step = Step.of(rows, rows_a_step=2)
    assert (step.tokens, step.labelled) == pytest.approx((96, 24))
