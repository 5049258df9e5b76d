"""Holds an answer to a JSON schema: each step only tokens that may come next have a chance.

The grammar is llguidance's. Its tokenizer is made for the first answer that needs one, or before.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from raylora.errors import InvalidRequest

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

log = logging.getLogger(__name__)

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
"""JSON mode."""
WHITESPACE = r"( |\n {0,16})?"
"""Between the parts of JSON: some models would write line after empty line and never go on."""

LARGEST_SCHEMA = 32_768
"""Characters. One of 54,000 took 0.15 s to check, and the engine 0.4 s: nobody generates then."""


def grammar_of(schema: Mapping[str, Any]) -> str:
    """What Sampling.grammar takes. Raises InvalidRequest where that is no schema to llguidance."""
    from llguidance import LLMatcher

    written = json.dumps(schema)
    if len(written) > LARGEST_SCHEMA:
        raise InvalidRequest(
            f"the JSON schema has {len(written)} characters, more than {LARGEST_SCHEMA}"
        )
    try:
        grammar = LLMatcher.grammar_from_json_schema(
            written, overrides={"whitespace_pattern": WHITESPACE}
        )
    except ValueError as error:
        raise InvalidRequest(f"the JSON schema cannot be used: {error}") from error
    problem = LLMatcher.validate_grammar(grammar, None)
    if problem:
        raise InvalidRequest(f"the JSON schema cannot be used: {problem}")
    return grammar


class Grammars:
    """Of one tokenizer."""

    def __init__(self, tokenizer: Any, end_tokens: Sequence[int]) -> None:
        """`end_tokens` are allowed where the answer is whole."""
        self._own = tokenizer
        self._end_tokens = end_tokens

    def prepare(self) -> None:
        """Make the tokenizer now: half a second and 35 MiB for 49,152 tokens.

        llguidance holds the interpreter's lock meanwhile, so those that generate would wait for it
        in whatever thread it is made.
        """
        try:
            _ = self._tokenizer
        except Exception as error:
            log.warning("answers cannot be held to JSON with this tokenizer: %s", error)

    def constraint(self, grammar: str | None) -> "Constraint | None":
        """A grammar at its beginning; None where there is none."""
        if grammar is None:
            return None
        from llguidance import LLMatcher

        return Constraint(LLMatcher(self._tokenizer, grammar, log_level=0))

    @cached_property
    def _tokenizer(self) -> "LLTokenizer":
        from llguidance.hf import from_tokenizer

        return from_tokenizer(self._own, eos_token=list(self._end_tokens))


class Constraint:
    """A grammar, and how far one answer has come in it."""

    def __init__(self, matcher: "LLMatcher") -> None:
        self._matcher = matcher

    def on(self, logits: Tensor) -> Tensor:
        """Logits of shape (vocabulary,) without a chance for what must not come next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = torch.zeros(len(logits), dtype=torch.bool)
        known = min(len(logits), 8 * len(bits))  # a model may have more logits than tokens
        allowed[:known] = torch.from_numpy(np.unpackbits(bits, count=known, bitorder="little") > 0)
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def note(self, token: int) -> None:
        """Take in a token that was generated. Raises ValueError where the grammar has failed."""
        if not self._matcher.consume_token(token):
            raise ValueError(f"the JSON schema cannot be followed: {self._matcher.get_error()}")
