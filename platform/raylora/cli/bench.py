"""`raylora bench serve`: how fast an endpoint answers under a load of one's choice."""

from collections import Counter
from collections.abc import Sequence
from statistics import quantiles
from typing import Any

import click
from rich.console import Group

from raylora.cli.endpoint_client import EndpointClient
from raylora.cli.load import OK, Load, Measured, Sample, measure
from raylora.cli.options import address_option, output_option
from raylora.cli.output import emit, make_table, note
from raylora.cli.serve import find_endpoint
from raylora.errors import RayloraError

PERCENTILES = (50, 90, 95, 99)
MAX_REQUESTS, MAX_SECONDS, MAX_CONCURRENCY = 100_000, 3600.0, 1024


@click.group("bench")
def command() -> None:
    """Measure an endpoint under load."""


@command.command("serve")
@click.option(
    "--model",
    "-m",
    "models",
    multiple=True,
    metavar="NAME",
    help="Base name, name, name@7 or name@alias; repeat to mix. Without it: the first adapter.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Open loop: so many requests a second at random (Poisson), whether or not answers come.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, MAX_CONCURRENCY),
    help="Closed loop: so many clients, each with one request at a time.  [default: 8]",
)
@click.option("--requests", type=click.IntRange(1, MAX_REQUESTS), default=64, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(1, MAX_SECONDS),
    default=60.0,
    show_default=True,
    help="No request begins later.",
)
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True)
@click.option("--prompt", help="Sent each time. Without it: words that differ each time.")
@click.option("--prompt-words", type=click.IntRange(1, 100_000), default=32, show_default=True)
@click.option("--warm-up", type=click.IntRange(0, 100), default=1, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--endpoint",
    metavar="URL",
    envvar="RAYLORA_ENDPOINT",
    show_envvar=True,
    help="Such as http://127.0.0.1:8000. Without it: that of the cluster.",
)
@address_option
@output_option
def serve(
    models: tuple[str, ...],
    rate: float | None,
    concurrency: int | None,
    requests: int,
    seconds: float,
    max_tokens: int,
    prompt: str | None,
    prompt_words: int,
    warm_up: int,
    seed: int,
    endpoint: str | None,
    address: str | None,
    output: str,
) -> None:
    """Send requests and tell percentiles of the times, and tokens a second.

    Only to an endpoint of your own: it is as much load as you ask for.
    """
    if rate is not None and concurrency is not None:
        raise click.UsageError("--rate is an open loop and --concurrency a closed one: choose one")
    url = find_endpoint(endpoint, address)
    load = Load(
        models=models or (EndpointClient(url).default_model(),),
        requests=requests,
        seconds=seconds,
        max_tokens=max_tokens,
        rate=rate,
        concurrency=concurrency or 8,
        prompt=prompt,
        prompt_words=prompt_words,
        seed=seed,
    )
    note(f"asking {url} for at most {seconds:g} s")
    found = summary(measure(url, load, warm_up=warm_up))
    emit(found, output, lambda: _tables(found))
    if not found["outcomes"].get(OK):
        raise RayloraError(
            f"none of the {found['requests']} requests was answered: {found['outcomes']}",
            hint="raylora chat hello   (shows what the endpoint says)",
        )


def summary(measured: Measured) -> dict[str, Any]:
    """Rates over the whole time, and percentiles in seconds of all answers and by model."""
    samples = measured.samples
    answered = [sample for sample in samples if sample.outcome == OK]
    load = measured.load
    return {
        "loop": "closed" if load.rate is None else "open",
        "concurrency": load.concurrency if load.rate is None else None,
        "rate": load.rate,
        "max_tokens": load.max_tokens,
        "requests": len(samples),
        "outcomes": dict(Counter(sample.outcome for sample in samples)),
        "wall_s": measured.wall_s,
        "requests_per_second": len(answered) / measured.wall_s,
        "tokens": sum(sample.tokens for sample in answered),
        "tokens_per_second": sum(sample.tokens for sample in answered) / measured.wall_s,
        **_times(answered),
        "models": {
            model: _times([sample for sample in answered if sample.model == model])
            for model in dict.fromkeys(load.models)
        },
    }


def _times(samples: Sequence[Sample]) -> dict[str, dict[str, float] | None]:
    return {
        "time_to_first_token_s": percentiles([s.first_s for s in samples]),
        "time_per_output_token_s": percentiles([s.token_s for s in samples]),
        "end_to_end_s": percentiles([s.total_s for s in samples]),
    }


def percentiles(values: Sequence[float | None]) -> dict[str, float] | None:
    """By name, such as p95; None where nothing was measured."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    cuts = quantiles(known, n=100, method="inclusive") if len(known) > 1 else known * 99
    return {f"p{p}": cuts[p - 1] for p in PERCENTILES} | {"mean": sum(known) / len(known)}


def _tables(found: dict[str, Any]) -> Group:
    names = [f"p{p}" for p in PERCENTILES] + ["mean"]
    rows = [
        (model, name.removesuffix("_s").replace("_", " "), *_milliseconds(times, names))
        for model, each in (("all", found), *found["models"].items())
        for name in ("time_to_first_token_s", "time_per_output_token_s", "end_to_end_s")
        if (times := each[name]) is not None
    ]
    head = ("loop", "requests", "outcomes", "seconds", "requests/s", "tokens/s")
    loop = (
        f"closed, {found['concurrency']} clients"
        if found["rate"] is None
        else f"open, {found['rate']:g}/s"
    )
    outcomes = ", ".join(f"{count} {name}" for name, count in found["outcomes"].items())
    figures = (found["wall_s"], found["requests_per_second"], found["tokens_per_second"])
    return Group(
        make_table(head, [(loop, found["requests"], outcomes, *figures)]),
        make_table(("model", "milliseconds", *names), rows),
    )


def _milliseconds(times: dict[str, float], names: Sequence[str]) -> list[float]:
    return [1000 * times[name] for name in names]
