"""`raylora chat`: talk to the base or to adapters of an endpoint, several side by side."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import click
from rich.console import Console

from raylora.cli.endpoint_client import Answer, EndpointClient
from raylora.cli.options import address_option, output_option
from raylora.cli.output import emit, note, result_console
from raylora.cli.serve import find_endpoint
from raylora.cli.side_by_side import ask_all

LEAVE = ("/exit", "/quit")


@click.command("chat")
@click.argument("prompt", required=False)
@click.option(
    "--model",
    "-m",
    "models",
    multiple=True,
    metavar="NAME",
    help="Base name, name, name@7 or name@alias; repeat to compare. "
    "Without it: the first adapter, or the base where there is none.",
)
@click.option("--system", help="System prompt. Without it: the one an adapter was trained with.")
@click.option("--no-system", is_flag=True, help="No system prompt at all.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), help="Without it: the endpoint's default.")
@click.option(
    "--endpoint",
    metavar="URL",
    envvar="RAYLORA_ENDPOINT",
    show_envvar=True,
    help="Such as http://127.0.0.1:8000. Without it: that of the cluster.",
)
@address_option
@output_option
def command(
    prompt: str | None,
    models: tuple[str, ...],
    system: str | None,
    no_system: bool,
    temperature: float,
    max_tokens: int | None,
    endpoint: str | None,
    address: str | None,
    output: str,
) -> None:
    """Ask an endpoint: once with PROMPT, or in a conversation without it.

    Several models are asked the same at once, and write side by side.
    """
    client = EndpointClient(find_endpoint(endpoint, address))
    chosen = models or (client.default_model(),)
    prompts = _system_prompts(client, chosen, "" if no_system else system)
    talks = [Talk(client, model, text) for model, text in zip(chosen, prompts, strict=True)]
    options = {"temperature": temperature, "max_tokens": max_tokens}
    for line in _lines() if prompt is None else [prompt]:
        if output == "json" or len(talks) > 1:
            _together(talks, line, options, output)
        else:
            _stream(talks[0], line, options)


class Talk:
    """One conversation with one model."""

    def __init__(self, client: EndpointClient, model: str, system: str | None) -> None:
        self._client = client
        self.model = model
        self._messages = [{"role": "system", "content": system}] if system else []

    def ask(self, prompt: str, options: dict[str, Any], show: Callable[[str], None]) -> Answer:
        """The answer, of which each piece is shown as it comes; it becomes part of the talk."""
        messages = [*self._messages, {"role": "user", "content": prompt}]
        answer = self._client.chat(self.model, messages, options, show)
        self._messages = [*messages, {"role": "assistant", "content": answer.text}]
        return answer


def _system_prompts(
    client: EndpointClient, models: Sequence[str], fixed: str | None
) -> list[str | None]:
    """The fixed one for all, or each adapter's own; the base gets that of one beside it."""
    if fixed is not None:
        return [fixed for _ in models]
    own = [client.system_prompt(model) for model in models]
    shared = next((text for text in own if text), None)
    return [text or shared for text in own]


def _together(talks: Sequence[Talk], prompt: str, options: dict[str, Any], output: str) -> None:
    """Answers of several models, in columns or as JSON; the first error once all have ended."""
    asks = [partial(talk.ask, prompt, options) for talk in talks]
    names = [talk.model for talk in talks]
    console = Console(quiet=True) if output == "json" else result_console()
    columns = ask_all(names, asks, console)
    if error := next((column.error for column in columns if column.error), None):
        raise error
    if output == "json":
        emit([column.answer for column in columns], output)


def _stream(talk: Talk, prompt: str, options: dict[str, Any]) -> None:
    """Text on stdout as it comes; who said it, and how fast, on stderr."""
    console = Console(highlight=False, soft_wrap=True)
    answer = talk.ask(prompt, options, lambda piece: console.print(piece, end="", markup=False))
    console.print()
    note(f"{answer.model}: {answer.speed}")


def _lines() -> Iterator[str]:
    """What the user types, until the end of input or /exit."""
    interactive = sys.stdin.isatty()
    if interactive:
        note(f"{LEAVE[0]} or Ctrl-D ends the conversation")
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except EOFError:
            return
        if line in LEAVE:
            return
        if line:
            yield line
