"""What subjects make of rows: answers and likelihoods through the real engine and bank."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.jobs.evaluate.conftest import row
from transformers import AutoTokenizer, LlamaForCausalLM

from raylora.config.evaluate_spec import AskedSpec, EvaluateSpec
from raylora.errors import InvalidConfig, InvalidData, JobFailed
from raylora.jobs.evaluate.asked_rows import read
from raylora.jobs.evaluate.examiner import Examiner
from raylora.jobs.evaluate.row_result import RowResult

Make = Callable[..., Any]
ROWS = [
    row("pick", "red", options=["red", "blue", "green"]),
    row("say", "a longer answer", options=["a longer answer", "no"]),
    row("end", "blue", options=["red", "blue"]),
]
LIKELIHOODS = ("choice_accuracy", "loss", "perplexity")


def measured(
    examiner: Callable[..., Examiner], spec: EvaluateSpec, *folders: Path
) -> dict[str, list[RowResult]]:
    """Results by subject, each in the order of the rows."""
    rows = read(spec.datasets[0], None, Path.cwd()).rows
    results = examiner(spec, folders).measure(0, rows)
    names = [result.subject for result in results]
    assert names[: len(folders) + 1] == ["base", *(folder.name for folder in folders)]
    return {
        name: [result for result in results if result.subject == name]
        for name in dict.fromkeys(names)
    }


def likelihood(model: Any, base: Path, asked: str, answer: str) -> tuple[float, int]:
    """Sum of the answer's token losses by transformers alone, end token included."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompt = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    after = tokenizer(f"{answer}<|im_end|>", add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = model(torch.tensor([before + after])).logits[0]
    chances = logits.log_softmax(-1)[len(before) - 1 : -1]
    return -float(chances[range(len(after)), after].sum()), len(after)


def test_losses_and_choices_are_those_of_peft_alone(
    rows_file: Make, tiny_spec: Make, examiner: Make, peft_adapter: Make, tiny_base: Path
) -> None:
    folder = peft_adapter("one", 1)
    dataset = AskedSpec(
        source=str(rows_file(*ROWS)), options_column="options", metrics=LIKELIHOODS
    )
    found = measured(examiner, tiny_spec(dataset), folder, peft_adapter("two", 2))
    base: Any = LlamaForCausalLM.from_pretrained(tiny_base)
    adapted: Any = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny_base), folder)
    for name, model in (("base", base.eval()), ("one", adapted.eval())):
        for said, result in zip(ROWS, found[name], strict=True):
            asked, answer = (turn["content"] for turn in said["messages"])  # type: ignore[union-attr]
            total, tokens = likelihood(model, tiny_base, asked, answer)
            assert result.reference_tokens == tokens
            assert result.scores["loss"] == pytest.approx(total / tokens, abs=1e-4)
            options = {o: likelihood(model, tiny_base, asked, o)[0] for o in said["options"]}  # type: ignore[union-attr]
            assert result.choice == min(options, key=lambda option: options[option])
            assert result.scores["choice_accuracy"] == float(result.choice == answer)
            assert result.answer is None
            assert "perplexity" not in result.scores
    losses = {name: [r.scores["loss"] for r in results] for name, results in found.items()}
    assert losses["base"] != losses["one"] != losses["two"]


def test_answers_of_mixed_adapters_are_those_of_each_alone(
    rows_file: Make, tiny_spec: Make, examiner: Make, peft_adapter: Make
) -> None:
    dataset = AskedSpec(source=str(rows_file(*ROWS)), metrics=("exact_match", "rouge_l"))
    one, two = peft_adapter("one", 1), peft_adapter("two", 2)
    together = measured(examiner, tiny_spec(dataset), one, two)
    alone = measured(examiner, tiny_spec(dataset), two)
    assert [r.answer for r in together["two"]] == [r.answer for r in alone["two"]]
    assert together["base"] == alone["base"]
    result = together["one"][0]
    assert (result.dataset, result.line, result.reference) == ("rows", 1, "red")
    assert result.prompt == [{"role": "user", "content": "pick"}]
    assert result.tokens and result.tokens <= 6
    assert list(result.scores) == ["exact_match", "rouge_l"]


def test_an_adapter_that_cannot_share_a_batch_is_merged(
    rows_file: Make, tiny_spec: Make, examiner: Make, peft_adapter: Make
) -> None:
    dataset = AskedSpec(source=str(rows_file(*ROWS)), metrics=("loss", "exact_match"))
    dora = peft_adapter("dora", 3, use_dora=True)
    found = measured(examiner, tiny_spec(dataset), dora, peft_adapter("one", 1))
    assert all(result.scores["loss"] for result in found["dora"])
    assert found["dora"][0].scores != found["base"][0].scores
    assert found["one"] == measured(examiner, tiny_spec(dataset), peft_adapter("one", 1))["one"]


def test_a_row_that_cannot_be_asked_is_listed_with_its_reason(
    rows_file: Make, tiny_spec: Make, examiner: Make, peft_adapter: Make
) -> None:
    rows = rows_file(
        row("ok", "yes", options=["yes", "no"]),
        row("x" * 150, "yes", options=["yes", "no"]),
        row(" ", "yes", options=["yes", "no"]),
        row("ok", "maybe", options=["yes", "no"]),
        row("ok", "yes", options="yes"),
        {"messages": [{"role": "assistant", "content": "yes"}], "options": ["yes", "no"]},
    )
    metrics = ("exact_match", "choice_accuracy", "loss")
    dataset = AskedSpec(source=str(rows), options_column="options", metrics=metrics)
    found = measured(examiner, tiny_spec(dataset), peft_adapter("one", 1))
    for name, results in found.items():
        assert [result.line for result in results] == [1, 2, 3, 4, 5, 6], name
        reasons = [result.unasked for result in results]
        assert reasons[0] == ""
        for reason, part in zip(
            reasons[1:],
            ("context length of 160", "no content", "none of its options", "column 'options'", ""),
            strict=True,
        ):
            assert part in reason and reason
        assert all(set(result.scores.values()) == {None} for result in results[1:])
    assert None not in found["base"][0].scores.values()


def test_plain_text_has_a_loss_and_no_answer(
    rows_file: Make, tiny_spec: Make, examiner: Make
) -> None:
    source = str(rows_file({"text": "some words"}))
    (result,) = measured(examiner, tiny_spec(AskedSpec(source=source, metrics=("loss",))))["base"]
    assert result.reference_tokens == len("some words")  # the first predicted by none, and the end
    assert math.isfinite(result.scores["loss"] or math.nan)
    asked = AskedSpec(source=source, metrics=("loss", "exact_match"))
    (result,) = measured(examiner, tiny_spec(asked))["base"]
    assert result.unasked == "plain text asks nothing"


def test_metrics_of_ones_own_travel_as_a_file(
    rows_file: Make, tiny_spec: Make, examiner: Make, tmp_path: Path
) -> None:
    (tmp_path / "0123456789abcdef-mine.py").write_text(
        "def short(answer, reference):\n    return len(answer) < 999\n"
        "def silent(answer, reference):\n    return None\n"
        "def bad(answer, reference):\n    return 'good'\n"
        "def broken(answer, reference):\n    raise KeyError('x')\n",
        encoding="utf-8",
    )
    source = str(rows_file(*ROWS))

    def scores(*names: str) -> dict[str, float | None]:
        dataset = AskedSpec(source=source, metrics=names)
        spec = tiny_spec(dataset, module="0123456789abcdef-mine.py")
        return measured(examiner, spec)["base"][0].scores

    assert scores("mine:short", "mine:silent") == {"mine:short": 1.0, "mine:silent": None}
    assert scores("operator:eq") == {"operator:eq": 0.0}
    with pytest.raises(JobFailed, match="mine:bad gave 'good'"):
        scores("mine:bad")
    with pytest.raises(JobFailed, match="mine:broken failed on the answer .*KeyError"):
        scores("mine:broken")
    with pytest.raises(InvalidConfig, match="mine:none cannot be imported") as caught:
        scores("mine:none", "nowhere:at_all")
    assert len(caught.value.problems) == 2


def test_a_pattern_is_looked_for_in_the_answer(
    rows_file: Make, tiny_spec: Make, examiner: Make
) -> None:
    source, metrics = str(rows_file(*ROWS)), ("regex_match",)
    for pattern, score in ((r"\A", 1.0), ("never said", 0.0)):
        dataset = AskedSpec(source=source, metrics=metrics, pattern=pattern)
        assert measured(examiner, tiny_spec(dataset))["base"][0].scores == {"regex_match": score}


def test_a_data_set_without_a_row_to_ask_is_refused(rows_file: Make, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="none of its 2 rows can be asked; the first: .*:1:"):
        read(AskedSpec(source=str(rows_file(row("", "a"), row("", "b")))), None, tmp_path)
    with pytest.raises(InvalidData, match="none of its 0 rows"):
        read(AskedSpec(source=str(rows_file())), None, tmp_path)


def test_the_first_rows_are_the_first_of_the_file(rows_file: Make, tmp_path: Path) -> None:
    spec = AskedSpec(source=str(rows_file(*ROWS)))
    whole, part = read(spec, None, tmp_path), read(spec, 2, tmp_path)
    assert part.rows == whole.rows[:2]
    assert part.digest != whole.digest
