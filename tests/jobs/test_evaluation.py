import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from raylora.config.train_spec import EvaluationSpec
from raylora.engine.generator import Engine
from raylora.engine.prompts import chat_prompt
from raylora.engine.request import Completion, Event, FinishReason, Request
from raylora.errors import ExitCode, InvalidConfig, InvalidData, JobFailed
from raylora.jobs.data.conversation import Message
from raylora.jobs.data.rows import Row, Rows
from raylora.jobs.evaluation import Prediction, evaluate, write_predictions

REFERENCES = ['{"action":"on"}', '{"action":"off"}', '{"action":"set","value":4}']
SUBJECTS = {"base": None, "mine": "mine@1"}
SYSTEM = "Answer in JSON."


def rows(*answers: str) -> Rows:
    items = [
        Row((Message(role="user", content=f"ask {i}"), Message(role="assistant", content=a)), i)
        for i, a in enumerate(answers, 1)
    ]
    return Rows("rows.jsonl", "/data/rows.jsonl", tuple(items), "digest")


class ScriptedEngine:
    """Answers by adapter key and by what the prompt asks; remembers what it was asked."""

    max_length = 512

    def __init__(self, tokenizer, answers: dict[str | None, list[str]]) -> None:
        self.tokenizer, self.answers = tokenizer, answers
        self.asked: list[Request] = []
        self.reason = FinishReason.STOP

    @property
    def has_work(self) -> bool:
        return bool(self.asked)

    def add(self, request: Request) -> None:
        self.asked.append(request)

    def step(self) -> list[Event]:
        # Backwards, since nobody promised an order.
        done, self.asked = self.asked[::-1], []
        return [Event(r.id, "", self._complete(r)) for r in done]

    def _complete(self, request: Request) -> Completion:
        prompt = self.tokenizer.decode(list(request.prompt_ids))
        row = next(i for i in range(1, 4) if f"ask {i}" in prompt)
        text = self.answers[request.adapter][row - 1]
        ids = tuple(range(len(text)))
        return Completion(request.id, text, ids, self.reason, len(request.prompt_ids), "broke")


@pytest.fixture
def engine(tokenizer) -> ScriptedEngine:
    script = {
        None: ["Sure!", '{"action":"off"}', '{"action":"set"}'],
        "mine@1": REFERENCES,
    }
    return ScriptedEngine(tokenizer, script)


def run(engine, tokenizer, data=None, subjects=SUBJECTS, **fields):
    spec = EvaluationSpec(**fields)
    data = data or rows(*REFERENCES)
    return evaluate(engine, data, subjects, spec, tokenizer=tokenizer, system_prompt=SYSTEM)


def test_each_subject_is_scored_over_all_rows(engine, tokenizer):
    result = run(engine, tokenizer)
    assert {name: scores.rows for name, scores in result.scores.items()} == {"base": 3, "mine": 3}
    assert result.scores["mine"].metrics == {"exact_match": 1, "json_valid": 1, "json_fields": 1}
    base = result.scores["base"].metrics
    assert base == pytest.approx({"exact_match": 1 / 3, "json_valid": 2 / 3, "json_fields": 0.5})


def test_subjects_get_the_same_prompts_in_one_mixed_run(engine, tokenizer):
    added: list[Request] = []
    engine.step = lambda step=engine.step: (added.extend(engine.asked), step())[1]
    run(engine, tokenizer, max_new_tokens=9)
    assert [request.adapter for request in added] == [None, "mine@1"] * 3
    prompt = chat_prompt(
        tokenizer, [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "ask 1"}]
    )
    assert added[0].prompt_ids == added[1].prompt_ids == tuple(prompt)
    assert {request.sampling.max_new_tokens for request in added} == {9}
    assert {request.sampling.temperature for request in added} == {0}


def test_every_answer_is_kept(engine, tokenizer):
    first, *_ = run(engine, tokenizer).predictions
    assert first == Prediction(
        subject="base",
        line=1,
        prompt=[Message(role="system", content=SYSTEM), Message(role="user", content="ask 1")],
        reference=REFERENCES[0],
        answer="Sure!",
        finish_reason=FinishReason.STOP,
        tokens=5,
        scores={"exact_match": 0, "json_valid": 0, "json_fields": 0},
    )


def test_earlier_turns_are_part_of_the_prompt(engine, tokenizer):
    turns = [("user", "ask 1"), ("assistant", "yes?"), ("user", "now"), ("assistant", "{}")]
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    data = Rows("s", "f", (Row(messages, 1),), "d")
    prediction = run(engine, tokenizer, data).predictions[0]
    assert [m["content"] for m in prediction.prompt] == [SYSTEM, "ask 1", "yes?", "now"]
    assert prediction.reference == "{}"


def test_only_the_first_rows_and_the_named_metrics_where_asked(engine, tokenizer):
    result = run(engine, tokenizer, max_rows=2, metrics=("json_valid",))
    assert result.scores["base"].rows == 2
    assert result.scores["base"].metrics == {"json_valid": 0.5}
    assert len(result.predictions) == 4


def test_an_unknown_metric_is_refused_before_anything_runs(engine, tokenizer):
    with pytest.raises(InvalidConfig, match="'bleu'"):
        run(engine, tokenizer, metrics=("bleu",))


def test_a_row_without_room_for_an_answer_is_named(engine, tokenizer):
    engine.max_length = 40
    with pytest.raises(InvalidData, match=r"^/data/rows.jsonl:1: the prompt has") as caught:
        run(engine, tokenizer)
    assert caught.value.exit_code is ExitCode.DATA


def test_a_broken_engine_is_no_wrong_answer(engine, tokenizer):
    engine.reason = FinishReason.ERROR
    with pytest.raises(JobFailed, match="base gave no answer to row 1: broke"):
        run(engine, tokenizer)


def test_predictions_are_written_one_a_line(engine, tokenizer, tmp_path):
    path = tmp_path / "metadata" / "predictions.jsonl"
    predictions = run(engine, tokenizer).predictions
    write_predictions(path, predictions)
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(written) == len(predictions) == 6
    assert written[3]["subject"] == "mine"
    assert written[3]["finish_reason"] == "stop"
    assert set(written[0]) == set(Prediction.__dataclass_fields__)


class BaseOnly:
    """A bank without adapters."""

    in_force = None

    def rows(self, keys: Sequence[str | None]) -> AbstractContextManager[object]:
        return nullcontext()

    def stamp(self, key: str) -> str:
        return key


def test_the_real_engine_answers(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).eval()
    engine = Engine(model, tokenizer, BaseOnly(), max_batch_size=2)
    data = rows(*REFERENCES)
    again = [run(engine, tokenizer, data, {"base": None}, max_new_tokens=4) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0].scores["base"].metrics["exact_match"] == 0
    assert [p.line for p in again[0].predictions] == [1, 2, 3]
