"""ShareGPT's turns, {"from": "human", "value": "..."}, as messages."""

from typing import Any, Final, cast

from raylora.jobs.data.kinds import joined
from raylora.jobs.data.records import BadLine
from raylora.jobs.data.tool_calls import parsed

ROLES: Final = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model"), "assistant"),
    "system": "system",
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "function_call": "function_call",
}
"""What `from` says to who that is; a function_call is a turn of the assistant."""


def turns(value: object, system: object = None) -> object:
    """Messages, not checked yet. Raises BadLine for an unknown speaker or a broken call."""
    if not isinstance(value, list):
        return value
    messages = [_message(turn, i) for i, turn in enumerate(cast(list[object], value))]
    return [{"role": "system", "content": system}, *messages] if system else messages


def _message(turn: object, index: int) -> object:
    if not isinstance(turn, dict):
        return turn
    fields = cast(dict[str, Any], turn)
    if "from" not in fields:
        return fields
    speaker = fields["from"]
    role = ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise BadLine(
            f"conversations[{index}] has the unknown role {speaker!r:.60}",
            f"use one of: {joined(ROLES)}",
        )
    kept = {key: part for key, part in fields.items() if key not in ("from", "value")}
    if role == "function_call":
        return {"role": "assistant", "tool_calls": _calls(fields.get("value"), index), **kept}
    return {"role": role, "content": fields.get("value"), **kept}


def _calls(value: object, index: int) -> object:
    """One call or a list of them, as the text of its JSON."""
    found = parsed(value, f"conversations[{index}]")
    return found if isinstance(found, list) else [found]
