"""Answers of the tiny base and two adapters, mixed in the engine's batches."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.registered import register

from raylora.config.batch_spec import BatchSpec
from raylora.config.model_spec import DType, ModelSource, ModelSpec
from raylora.config.serve_spec import BatchingSpec, ServeSpec
from raylora.errors import NotFound
from raylora.jobs.batch.answerer import Answerer, Asked, Replies
from raylora.jobs.batch.questions import Question

LONG = "x" * 300


@pytest.fixture(scope="module")
def spec(
    tiny_base: Path, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BatchSpec]:
    """Of a registry with two adapters."""
    scratch = tmp_path_factory.mktemp("batch")
    outputs = scratch / "outputs"
    outputs.mkdir()
    shutil.copy(empty_store, outputs / "mlflow.db")
    model = ModelSpec(
        source=ModelSource.PATH, id=str(tiny_base), name="tiny", dtype=DType.FP32, max_length=256
    )
    serving = ServeSpec(outputs=str(outputs), model=model, batching=BatchingSpec(max_batch_size=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYLORA_CACHE", str(scratch / "cache"))
        for seed, name in enumerate(("tones", "sums"), start=1):
            register(outputs, model, scratch, name, f"You are {name}.", seed)
        yield BatchSpec(input="in", output="out", max_tokens=6, serving=serving)


def question(row: int, text: str = "hello") -> Question:
    return Question(row, f"id-{row}", ({"role": "user", "content": text},))


def replies(answerer: Answerer, asked: list[Asked]) -> Replies:
    found = answerer.answer(asked)
    assert isinstance(found, Replies)
    return found


VERSIONS = ("tones@1", "sums@1")


def test_answers_are_the_same_alone_and_mixed_and_differ_by_adapter(spec):
    asked = [Asked(question(row), v) for row in range(1, 6) for v in (*VERSIONS, "tiny")]
    mixed = replies(Answerer(spec, VERSIONS), asked)
    assert mixed.failures == []
    by = {(line["row"], line["adapter"]): line for line in mixed.lines}
    assert len(by) == 15
    assert len({by[1, v]["answer"] for v in (*VERSIONS, "tiny")}) == 3
    alone = Answerer(spec, VERSIONS)
    for each in asked[:3]:
        [line] = replies(alone, [each]).lines
        assert line == by[1, each.version]
    assert mixed.tokens == sum(line["completion_tokens"] for line in mixed.lines)
    assert by[1, "tones@1"]["id"] == "id-1"


def test_each_is_asked_with_its_own_system_prompt_or_with_the_given_one(spec):
    def prompt_tokens(**changes) -> list[int]:
        answerer = Answerer(spec.model_copy(update=changes), VERSIONS)
        asked = [Asked(question(1), v) for v in (*VERSIONS, "tiny")]
        lines = {line["adapter"]: line for line in replies(answerer, asked).lines}
        return [lines[v]["prompt_tokens"] for v in (*VERSIONS, "tiny")]

    none = prompt_tokens(system_prompt="")
    assert len(set(none)) == 1
    own = [count - none[0] for count in prompt_tokens()]
    # A token a byte; the base beside them gets the first one's.
    assert own[0] - own[1] == len("tones") - len("sums")
    assert own[2] == own[0] > 0
    assert len(set(prompt_tokens(system_prompt="All the same."))) == 1


def test_what_cannot_be_asked_has_a_line_that_says_why(spec):
    found = replies(
        Answerer(spec, VERSIONS),
        [Asked(question(1, LONG), "tones@1"), *[Asked(question(2), "tones@1")]],
    )
    by = {line["row"]: line for line in found.lines}
    assert "300" in by[1]["error"] or "tokens" in by[1]["error"]
    assert "answer" in by[2]


def test_an_adapter_that_is_not_there_is_an_error_of_the_whole(spec):
    assert isinstance(Answerer(spec, ("none@1",)).answer([Asked(question(1), "none@1")]), NotFound)
