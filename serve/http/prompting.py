"""What a body asks, as the engine takes it: token ids, and how to choose the next ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from raylora.engine.generator import check_length
from raylora.engine.grammar import grammar_of
from raylora.engine.prompts import chat_prompt
from raylora.engine.sampling import Sampling
from raylora.errors import InvalidRequest
from raylora.serve.http.api_errors import bad_request
from raylora.serve.http.protocol import ChatBody, CompletionBody, GenerationBody


class Prompting:
    """Reads bodies with one tokenizer, for a context of so many tokens."""

    def __init__(self, tokenizer: Any, max_length: int, default_max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._default_max_tokens = default_max_tokens

    def chat(self, body: ChatBody, template: str | None) -> list[list[int]]:
        """Token ids of the conversation; template: where it is not the tokenizer's own."""
        prompt = self._rendered(body, body.shown_tools, template)
        if body.shown_tools and prompt == self._rendered(body, (), template):
            raise bad_request("the model's chat template shows no tools", "tools")
        return [self._checked(prompt, "messages")]

    def plain(self, body: CompletionBody) -> list[list[int]]:
        """Token ids of each prompt."""
        return [self._checked(self._tokens(prompt), "prompt") for prompt in body.prompts]

    def sampling(self, body: GenerationBody) -> Sampling:
        """What the engine is to do, by OpenAI's defaults."""
        return Sampling(
            max_new_tokens=body.wanted_tokens or self._default_max_tokens,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            top_k=body.top_k or 0,
            seed=body.seed,
            stop=body.stop,
            min_p=body.min_p or 0.0,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            repetition_penalty=body.repetition_penalty or 1.0,
            logit_bias=self._bias(body.logit_bias or {}),
            logprobs=body.wanted_logprobs,
            grammar=_grammar(body.wanted_schema),
        )

    def most_tokens(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, answers: int
    ) -> int:
        """What a request may come to: its prompts, and all that its answers have room for."""
        return sum(
            len(prompt) + answers * min(sampling.max_new_tokens, self._max_length - len(prompt))
            for prompt in prompts
        )

    def _rendered(
        self, body: ChatBody, tools: Sequence[Mapping[str, Any]], template: str | None
    ) -> list[int]:
        messages = [message.rendered() for message in body.messages]
        try:
            return chat_prompt(self._tokenizer, messages, tools, template)
        except Exception as error:
            # Templates refuse some sequences of roles by raising; their message says which.
            raise bad_request(f"the chat template refuses: {error}", "messages") from error

    def _tokens(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            return self._tokenizer.encode(prompt)
        self._refuse_unknown(prompt, "prompt")
        return prompt

    def _bias(self, wanted: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
        self._refuse_unknown(wanted, "logit_bias")
        return tuple(wanted.items())

    def _refuse_unknown(self, tokens: Iterable[int], param: str) -> None:
        size = len(self._tokenizer)
        wrong = [token for token in tokens if not 0 <= token < size]
        if wrong:
            raise bad_request(f"token {wrong[0]} is not in 0..{size - 1}", param)

    def _checked(self, prompt: list[int], param: str) -> list[int]:
        try:
            check_length(len(prompt), self._max_length)
        except InvalidRequest as error:
            code = "context_length_exceeded" if prompt else "empty_prompt"
            raise bad_request(error.message, param, code) from error
        return prompt


def of_answer(sampling: Sampling, number: int) -> Sampling:
    """Of the answers to one prompt each has a seed of its own."""
    if sampling.seed is None:
        return sampling
    return replace(sampling, seed=sampling.seed + number)


def _grammar(schema: Mapping[str, Any] | None) -> str | None:
    if schema is None:
        return None
    try:
        return grammar_of(schema)
    except InvalidRequest as error:
        raise bad_request(error.message, "response_format") from error
