from pathlib import Path

from benchmarks.bars.chat_rows import ChatRows
from benchmarks.sweep.numbers import FP32, NF4, ONE_ROW_A_PASS, Trials


def test_eight_trials_span_the_ranks_and_rates_asked_for(tmp_path: Path):
    trials = Trials(ChatRows(Path("rows.jsonl"), Path("tokens.jsonl"), (), ()), tmp_path)
    specs = list(trials.specs(FP32).values())
    assert len(specs) == 8
    assert {min(s.lora.r for s in specs), max(s.lora.r for s in specs)} == {2, 64}
    rates = [s.training.learning_rate for s in specs]
    assert (min(rates), max(rates)) == (1e-5, 1e-3)
    assert len({s.training.seed for s in specs}) == 8
    assert trials.specs(FP32 | ONE_ROW_A_PASS)["t01"].training.micro_batch_size == 1
    assert trials.specs(NF4)["t01"].training == specs[0].training
