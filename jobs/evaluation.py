"""Generated answers on held-out rows, scored: the base and its adapters in one mixed run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from raylora.config.train_spec import EvaluationSpec
from raylora.engine.generator import Engine, generate
from raylora.engine.prompts import chat_prompt
from raylora.engine.request import Completion, FinishReason, Request, check_length
from raylora.engine.sampling import Sampling
from raylora.errors import InvalidData, InvalidRequest, JobFailed
from raylora.jobs import metrics
from raylora.jobs.data.conversation import Message
from raylora.jobs.data.rows import Row, Rows


@dataclass(frozen=True)
class Prediction:
    """What one subject answered to one row."""

    subject: str
    line: int
    """Of the row in its file, 1-based."""
    prompt: list[Message]
    """System prompt included."""
    reference: str
    answer: str
    finish_reason: FinishReason
    tokens: int
    """Generated, the end token included."""
    scores: dict[str, float]
    """By metric."""


@dataclass(frozen=True)
class Scores:
    """One subject over all rows."""

    rows: int
    metrics: dict[str, float]
    """Mean over the rows, by metric."""


@dataclass(frozen=True)
class Evaluation:
    """Scores by subject, and every answer behind them."""

    scores: dict[str, Scores]
    predictions: list[Prediction]


def evaluate(
    engine: Engine,
    rows: Rows,
    subjects: Mapping[str, str | None],
    spec: EvaluationSpec,
    *,
    tokenizer: Any,
    system_prompt: str | None,
) -> Evaluation:
    """Let each subject (a name and its adapter's key in the bank, None for the base) answer.

    Asked is for the last answer of a row, greedily; what comes before it is the prompt. All
    subjects' rows share the engine's batches. Raises InvalidData for a row that leaves no room
    for an answer, JobFailed where the engine breaks.
    """
    chosen = metrics.choose(spec.metrics)
    items = rows.items[: spec.max_rows]
    prompts = [row.conversation(system_prompt)[:-1] for row in items]
    asked: list[tuple[Row, list[Message], Question]] = []
    for row, prompt in zip(items, prompts, strict=True):
        ids = tuple(chat_prompt(tokenizer, prompt, row.tools))
        _check_room(len(ids), engine.max_length, rows.file, row.line)
        asked += [
            (row, prompt, Question(ids, name, key, row.line)) for name, key in subjects.items()
        ]
    completions = answer(engine, [question for *_, question in asked], spec.max_new_tokens)
    predictions = [
        _judge(question.subject, row, prompt, completion, chosen)
        for (row, prompt, question), completion in zip(asked, completions, strict=True)
    ]
    scores = {subject: _mean(subject, predictions, chosen) for subject in subjects}
    return Evaluation(scores, predictions)


@dataclass(frozen=True)
class Question:
    """A row's prompt, and who is asked."""

    prompt_ids: tuple[int, ...]
    subject: str
    key: str | None
    """Of the subject's adapter in the bank; None for the base."""
    line: int


def answer(engine: Engine, asked: Sequence[Question], max_new_tokens: int) -> list[Completion]:
    """Let the engine answer, greedily and all of them together, in their order.

    Raises JobFailed where it breaks.
    """
    sampling = Sampling(max_new_tokens=max_new_tokens)
    completions = generate(
        engine,
        [
            Request(f"{i}/{question.subject}", question.prompt_ids, question.key, sampling)
            for i, question in enumerate(asked)
        ],
    )
    for question, completion in zip(asked, completions, strict=True):
        if not completion.finish_reason.is_answer:
            raise JobFailed(
                f"{question.subject} gave no answer to row {question.line}: {completion.error}",
                hint="look at the worker's log for the step that failed",
            )
    return completions


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write one JSON object a line, with the fields of Prediction."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for prediction in predictions:
            file.write(json.dumps(asdict(prediction), ensure_ascii=False) + "\n")


def _check_room(prompt_tokens: int, max_length: int, file: str, line: int) -> None:
    try:
        check_length(prompt_tokens, max_length)
    except InvalidRequest as error:
        raise InvalidData(
            error.message, file=file, line=line, hint="shorten or drop the row"
        ) from error


def _judge(
    subject: str,
    row: Row,
    prompt: list[Message],
    completion: Completion,
    chosen: Mapping[str, metrics.Metric],
) -> Prediction:
    reference = row.messages[-1]["content"]
    return Prediction(
        subject=subject,
        line=row.line,
        prompt=prompt,
        reference=reference,
        answer=completion.text,
        finish_reason=completion.finish_reason,
        tokens=len(completion.token_ids),
        scores={name: score(completion.text, reference) for name, score in chosen.items()},
    )


def _mean(subject: str, predictions: Iterable[Prediction], names: Iterable[str]) -> Scores:
    mine = [prediction.scores for prediction in predictions if prediction.subject == subject]
    return Scores(len(mine), {name: fmean(scores[name] for scores in mine) for name in names})
