"""Asks subjects rows, all through one engine and one bank, and scores what they make of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raylora.config.evaluate_spec import AskedSpec, EvaluateSpec
from raylora.config.metric import Metric, is_own, needs_answer
from raylora.engine.generator import Engine
from raylora.engine.runner import Adapters
from raylora.errors import InvalidData
from raylora.jobs.data.conversation import Conversation, PlainText
from raylora.jobs.data.records import BadLine, Fault
from raylora.jobs.evaluate.asked_rows import AskedRow, Read
from raylora.jobs.evaluate.likelihood import Given, losses
from raylora.jobs.evaluate.own_metrics import OwnMetric, load_own
from raylora.jobs.evaluate.row_result import RowResult
from raylora.jobs.evaluate.subject import Subject
from raylora.jobs.evaluate.wording import Needs, Worded, Wording, prompt_of
from raylora.jobs.evaluation import Question, answer
from raylora.jobs.metrics import METRICS, regex_match


@dataclass(frozen=True)
class Panel:
    """Subjects that answer together: one model, one bank, one engine."""

    model: Any
    bank: Adapters
    engine: Engine
    keys: Mapping[str, str | None]
    """Of each subject's adapter in the bank, by its label; None for the model as it is."""


@dataclass(frozen=True)
class Asked:
    """Who is asked, and through what."""

    subjects: Sequence[Subject]
    panels: Sequence[Panel]
    """One, and one more for each adapter that cannot share a batch."""
    tokenizer: Any

    @property
    def max_length(self) -> int:
        """The context in tokens."""
        return self.panels[0].engine.max_length


def measure(
    asked: Asked, spec: EvaluateSpec, dataset: AskedSpec, rows: Sequence[Read], base_dir: Path
) -> list[RowResult]:
    """Every subject's result of every row, row by row; what cannot be asked says why.

    Rows are asked of all subjects or of none, so that their scores are of the same rows. Raises
    InvalidConfig for a metric that cannot be imported, JobFailed where the engine breaks.
    """
    names = spec.metrics_of(dataset)
    needs = _needs(names)
    scorers = _scorers(names, spec, dataset, base_dir)
    wordings = _wordings(asked, dataset, base_dir)
    worded = [_word(row, wordings, needs) for row in rows]
    sheet = [
        Entry(row, words, _blank(row, words, subject, dataset), subject)
        for row, words in zip(rows, worded, strict=True)
        for subject in asked.subjects
    ]
    for panel in asked.panels:
        mine = [e for e in sheet if e.subject.label in panel.keys and not e.result.unasked]
        if needs.answer:
            _answer(panel, mine, spec.max_new_tokens_of(dataset), scorers)
        if needs.loss or needs.choice:
            _judge(panel, mine)
    measured = dict.fromkeys(
        Metric.LOSS.value if name == Metric.PERPLEXITY else name for name in names
    )
    return [_ordered(entry.result, list(measured)) for entry in sheet]


@dataclass
class Entry:
    """One row and one subject, while it is asked."""

    row: Read
    words: dict[str | None, Worded] | BadLine
    result: RowResult
    subject: Subject

    @property
    def worded(self) -> Worded:
        """The row in the subject's template."""
        assert not isinstance(self.words, BadLine)
        return self.words[self.subject.chat_template]


def _needs(names: Sequence[str]) -> Needs:
    return Needs(
        answer=any(needs_answer(name) for name in names),
        loss=Metric.LOSS in names or Metric.PERPLEXITY in names,
        choice=Metric.CHOICE_ACCURACY in names,
    )


def _scorers(
    names: Sequence[str], spec: EvaluateSpec, dataset: AskedSpec, base_dir: Path
) -> dict[str, OwnMetric]:
    own = load_own([name for name in names if is_own(name)], spec.module, base_dir)
    known: dict[str, OwnMetric] = {**METRICS, **own}
    if dataset.pattern is not None:
        known[Metric.REGEX_MATCH] = regex_match(dataset.pattern)
    return {name: known[name] for name in names if needs_answer(name)}


def _wordings(asked: Asked, dataset: AskedSpec, base_dir: Path) -> dict[str | None, Wording]:
    """By the subject's own template; the data set's wins over all of them."""
    chosen = None if dataset.chat_template is None else _template(base_dir / dataset.chat_template)
    return {
        template: Wording(asked.tokenizer, chosen or template, dataset, asked.max_length)
        for template in dict.fromkeys(subject.chat_template for subject in asked.subjects)
    }


def _template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidData(
            f"the chat template cannot be read: {error}",
            file=str(path),
            hint="give chat_template the path of a Jinja file in UTF-8",
        ) from error


def _word(
    row: Read, wordings: Mapping[str | None, Wording], needs: Needs
) -> dict[str | None, Worded] | BadLine:
    if isinstance(row, Fault):
        return row.problem
    try:
        return {template: wording.word(row, needs) for template, wording in wordings.items()}
    except BadLine as problem:
        return problem


def _blank(row: Read, why: object, subject: Subject, dataset: AskedSpec) -> RowResult:
    """A row before it is asked, or with the reason why it cannot be."""
    found = RowResult(dataset.label, row.place.file, row.place.line, subject.label)
    match row:
        case AskedRow(content=Conversation() as content):
            prompt = prompt_of(content, dataset.system_prompt)
            found = replace(found, prompt=prompt, reference=content.messages[-1]["content"])
        case AskedRow(content=PlainText(text)):
            found = replace(found, reference=text)
        case _:  # a fault says nothing
            pass
    return replace(found, unasked=str(why)) if isinstance(why, BadLine) else found


def _answer(
    panel: Panel,
    entries: Sequence[Entry],
    max_new_tokens: int,
    scorers: Mapping[str, OwnMetric],
) -> None:
    """Put answers and their scores into results."""
    questions = [
        Question(
            entry.worded.prompt_ids,
            entry.subject.label,
            panel.keys[entry.subject.label],
            entry.result.line,
        )
        for entry in entries
    ]
    completions = answer(panel.engine, questions, max_new_tokens)
    for entry, completion in zip(entries, completions, strict=True):
        reference = entry.result.reference
        entry.result = replace(
            entry.result,
            answer=completion.text,
            finish_reason=completion.finish_reason.value,
            tokens=len(completion.token_ids),
            scores={name: score(completion.text, reference) for name, score in scorers.items()},
        )


def _judge(panel: Panel, entries: Sequence[Entry]) -> None:
    """Put losses and choices into results, all of them out of the same batches."""
    given: list[Given] = []
    for entry in entries:
        key = panel.keys[entry.subject.label]
        reference = entry.worded.given
        given += [Given(reference, key)] if reference else []
        given += [Given(option, key) for option in entry.worded.options]
    found = iter(losses(panel.model, panel.bank, given))
    for entry in entries:
        scores = dict(entry.result.scores)
        if entry.worded.given:
            loss = next(found)
            scores[Metric.LOSS.value] = loss.mean
            entry.result = replace(entry.result, reference_tokens=loss.tokens)
        if entry.worded.options:
            assert isinstance(entry.row, AskedRow)
            totals = [next(found).total for _ in entry.worded.options]
            choice = entry.row.options[totals.index(min(totals))]
            scores[Metric.CHOICE_ACCURACY.value] = float(choice == entry.result.reference)
            entry.result = replace(entry.result, choice=choice)
        entry.result = replace(entry.result, scores=scores)


def _ordered(found: RowResult, names: Sequence[str]) -> RowResult:
    """With a place for every metric, the spec's order."""
    return replace(found, scores={name: found.scores.get(name) for name in names})
