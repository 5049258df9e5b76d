"""Where the answers lie in a rendered conversation: found by rendering, and verified.

An answer begins where the prompt for it ends, that is what the model is given when it generates,
and stops behind its end-of-turn token. For both, what comes before must be the same in the whole
conversation as in the conversation up to the answer. Where a template renders an earlier answer
otherwise once more messages follow (it drops its reasoning, or moves the system message to the
last question), that answer becomes a row of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from raylora.config.data_spec import Supervise
from raylora.jobs.data.chat_template import ChatTemplate
from raylora.jobs.data.conversation import Conversation, Message, Role
from raylora.jobs.data.records import BadLine

Sequenced = TypeVar("Sequenced", str, list[int])


@dataclass(frozen=True)
class Span:
    """From start up to stop: characters or tokens."""

    start: int
    stop: int
    weight: float


@dataclass(frozen=True)
class Rendered(Generic[Sequenced]):
    """One sequence to learn from, as text or as token ids."""

    sequence: Sequenced
    answers: tuple[Span, ...]


class View(Protocol[Sequenced]):
    """A rendering: as text, which is quick, or as token ids, which nothing in a text can forge."""

    def render(self, messages: Sequence[Message], *, prompt: bool) -> Sequenced:
        """A conversation, or the prompt for its next answer."""
        ...

    def end(self, sequence: Sequenced, start: int) -> tuple[int, int] | None:
        """Where the first end-of-turn token from start on begins and stops."""
        ...

    def said(self, sequence: Sequenced, start: int, stop: int) -> str:
        """The text of a part."""
        ...


class TextView:
    """Conversations as text, without control tokens inside messages."""

    def __init__(self, template: ChatTemplate, conversation: Conversation) -> None:
        self._template = template
        self._tools = conversation.tools

    def render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        return self._template.text(messages, self._tools, prompt=prompt)

    def end(self, sequence: str, start: int) -> tuple[int, int] | None:
        found = self._template.end_pattern.search(sequence, start)
        return found and found.span()

    def said(self, sequence: str, start: int, stop: int) -> str:
        return sequence[start:stop]


class TokenView:
    """Conversations as token ids."""

    def __init__(self, template: ChatTemplate, conversation: Conversation, tokenizer: Any) -> None:
        self._template = template
        self._tools = conversation.tools
        self._tokenizer = tokenizer
        self._ends = frozenset(tokenizer.convert_tokens_to_ids(list(template.ends)))

    def render(self, messages: Sequence[Message], *, prompt: bool) -> list[int]:
        return self._template.ids(messages, self._tools, prompt=prompt)

    def end(self, sequence: list[int], start: int) -> tuple[int, int] | None:
        found = (i for i in range(start, len(sequence)) if sequence[i] in self._ends)
        return next(((i, i + 1) for i in found), None)

    def said(self, sequence: list[int], start: int, stop: int) -> str:
        return str(self._tokenizer.decode(sequence[start:stop], skip_special_tokens=False))


def find_answers(
    conversation: Conversation, supervise: Supervise, view: View[Sequenced]
) -> list[Rendered[Sequenced]]:
    """Render a conversation and locate the answers that matter; usually one row comes of it.

    Raises BadLine where the template fails or hides an answer.
    """
    messages = conversation.messages
    turns = _answering_turns(conversation, supervise)
    whole = view.render(messages, prompt=False)
    together: list[Span] = []
    alone: list[Rendered[Sequenced]] = []
    for turn in turns:
        prompt = view.render(messages[:turn], prompt=True)
        last = turn == len(messages) - 1
        so_far = whole if last else view.render(messages[: turn + 1], prompt=False)
        stop = _stop(view, messages[turn], turn, prompt, so_far)
        span = Span(len(prompt), stop, conversation.weights[turn])
        if whole[:stop] == so_far[:stop]:
            together.append(span)
        elif supervise is Supervise.ALL:
            raise _unclear(f"message {turn} is rendered otherwise when more messages follow")
        else:
            alone.append(Rendered(so_far, (span,)))
    if together or not turns:
        alone.append(Rendered(whole, tuple(together)))
    return alone


def _answering_turns(conversation: Conversation, supervise: Supervise) -> list[int]:
    """The assistant's turns whose place must be known, for what is to be supervised."""
    roles = [message["role"] for message in conversation.messages]
    turns = [turn for turn, role in enumerate(roles) if role == Role.ASSISTANT]
    weights = conversation.weights
    match supervise:
        case Supervise.ANSWERS:
            return [turn for turn in turns if weights[turn] > 0]
        case Supervise.LAST:
            return [turn for turn in turns[-1:] if weights[turn] > 0]
        case Supervise.ALL:
            return [turn for turn in turns if weights[turn] != 1]


def _stop(
    view: View[Sequenced], message: Message, turn: int, prompt: Sequenced, so_far: Sequenced
) -> int:
    start = len(prompt)
    if so_far[:start] != prompt:
        raise _unclear(
            f"the prompt of message {turn} is no prefix of the conversation; "
            "an answer that begins with white space can be the cause"
        )
    end = view.end(so_far, start)
    if end is None:
        raise _unclear(f"no control token ends message {turn}")
    said = _solid(view.said(so_far, start, end[0]))
    if missing := [part for part in _parts(message) if part not in said]:
        raise _unclear(f"message {turn} does not show its {missing[0]!r:.60}")
    return end[1]


def _parts(message: Message) -> list[str]:
    """What must be seen of an answer: its end, for a template may reshape its reasoning."""
    ending = _solid(str(message["content"]))[-_SEEN:]
    called = [_solid(call["function"]["name"]) for call in message.get("tool_calls", ())]
    return [ending, *called]


_SEEN = 40
"""Characters."""


def _solid(text: str) -> str:
    return "".join(text.split())


def _unclear(what: str) -> BadLine:
    return BadLine(
        f"the chat template cannot be used: {what}",
        "change the row, or set data.chat_template to a template that keeps its answers whole",
    )
