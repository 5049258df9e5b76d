"""Rows as one chat template words them: the prompt, and the answers whose likelihood is asked."""

import copy
from dataclasses import dataclass, replace
from typing import Any

from raylora.config.evaluate_spec import AskedSpec
from raylora.jobs.data.chat_template import ChatTemplate
from raylora.jobs.data.conversation import Conversation, Message
from raylora.jobs.data.encode import EncodedRow, Encoder
from raylora.jobs.data.examples import Example
from raylora.jobs.data.records import BadLine, Fault
from raylora.jobs.data.rows import PlacedRow
from raylora.jobs.evaluate.asked_rows import MAX_LENGTH, AskedRow


@dataclass(frozen=True)
class Worded:
    """One row, ready to be asked."""

    prompt_ids: tuple[int, ...]
    """Empty where no answer is to be generated."""
    given: Example | None
    """The whole row with the reference labelled; None where no likelihood is asked."""
    options: tuple[Example, ...]


@dataclass(frozen=True)
class Needs:
    """What the metrics of a data set look at."""

    answer: bool
    loss: bool
    choice: bool


class Wording:
    """One template over the rows of a data set."""

    def __init__(
        self, tokenizer: Any, template: str | None, spec: AskedSpec, max_length: int
    ) -> None:
        """`template` None is the tokenizer's own."""
        own = copy.copy(tokenizer)
        own.chat_template = template or tokenizer.chat_template
        self._template = ChatTemplate(own)
        self._encoder = Encoder(own, spec.as_data(MAX_LENGTH))
        self._spec = spec
        self._max_length = max_length

    def word(self, row: AskedRow, needs: Needs) -> Worded:
        """Raises BadLine for a row that the model cannot be asked."""
        prompt_ids: tuple[int, ...] = ()
        if needs.answer:
            prompt_ids = tuple(self._prompt(row))
            self._fits(len(prompt_ids) + 1, "prompt and one token of an answer")
        options: tuple[Example, ...] = ()
        if needs.choice:
            options = tuple(self._option(row, option) for option in row.options)
        return Worded(prompt_ids, self._encoded(row) if needs.loss else None, options)

    def _prompt(self, row: AskedRow) -> list[int]:
        if not isinstance(row.content, Conversation):
            raise BadLine("plain text asks nothing", "measure its loss, or drop the row")
        messages = prompt_of(row.content, self._spec.system_prompt)
        if not any(message["role"] != "system" for message in messages):
            raise BadLine("the prompt is empty", "write a question before the answer")
        self._template.check_tools(row.content.tools)
        return self._template.ids(messages, row.content.tools, prompt=True)

    def _option(self, row: AskedRow, option: str) -> Example:
        if not isinstance(row.content, Conversation):
            raise BadLine("plain text has no options", "measure its loss, or drop the row")
        answer = row.content.messages[-1]["content"]
        if answer not in row.options:
            raise BadLine(
                f"its answer {answer!r:.60} is none of its options", "add it to the options"
            )
        messages = (*row.content.messages[:-1], Message(role="assistant", content=option))
        return self._encoded(replace(row, content=replace(row.content, messages=messages)))

    def _encoded(self, row: AskedRow) -> Example:
        (found,) = self._encoder.encode([PlacedRow(row.place, row.content)])
        if isinstance(found, Fault):
            raise found.problem
        assert isinstance(found, EncodedRow)
        # With the last answer labelled there is one example, whatever the template does earlier.
        example = found.examples[-1]
        self._fits(len(example), "answer included")
        return example

    def _fits(self, tokens: int, what: str) -> None:
        if tokens > self._max_length:
            raise BadLine(
                f"{tokens} tokens, {what}, are more than the context length of {self._max_length}",
                "shorten the row, or raise model.max_length where the model has more",
            )


def prompt_of(content: Conversation, system_prompt: str | None) -> list[Message]:
    """All that comes before the last answer."""
    return list(content.prompted(system_prompt).messages[:-1])
