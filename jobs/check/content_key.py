"""What makes two rows the same row, and what of a row is compared for likeness."""

from collections.abc import Hashable
from typing import Final

from raylora.jobs.data.conversation import Content, Message, PlainText, canonical

_PLAIN_KEYS: Final = 2
"""role and content, without which there is no message."""
_SYSTEM: Final = "system"


def row_key(content: Content) -> Hashable:
    """Equal for rows that say the same. Conversations without tools take a fifth of the time."""
    if isinstance(content, PlainText):
        return content.text
    messages = content.messages
    if content.tools or sum(map(len, messages)) != _PLAIN_KEYS * len(messages):
        return canonical(content)
    return _said(messages)


def prompt_key(content: Content) -> Hashable:
    """Equal for rows that ask the same; a text asks nothing, so its key is that of the row."""
    if isinstance(content, PlainText):
        return content.text
    return _said(content.messages[:-1])


def compared(content: Content, most: int) -> str:
    """The beginning of a row's text, without system messages: those make strangers look alike."""
    if isinstance(content, PlainText):
        return content.text[:most]
    turns = (m["content"] for m in content.messages if m["role"] != _SYSTEM)
    return "\n".join(turns)[:most]


def size(content: Content) -> int:
    """Characters of a row."""
    if isinstance(content, PlainText):
        return len(content.text)
    return sum([len(message["content"]) for message in content.messages])


def _said(messages: tuple[Message, ...]) -> Hashable:
    said = [message["content"] for message in messages]
    said += [message["role"] for message in messages]
    return tuple(said)
