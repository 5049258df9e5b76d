"""The `raylora` command: commands are imported when they run; errors are printed here only."""

import difflib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

import click

from raylora import __version__
from raylora.errors import ExitCode, InvalidConfig, RayloraError


class Entry(NamedTuple):
    """Where a command lives and its one line of help, so that help imports nothing."""

    target: str
    """module:object"""
    help: str


COMMANDS: dict[str, Entry] = {
    "quickstart": Entry(
        "raylora.cli.quickstart:command", "The whole path on one machine: train, evaluate, serve."
    ),
    "submit": Entry("raylora.cli.submit:command", "Run a fine-tuning job and follow it."),
    "sweep": Entry("raylora.cli.sweep:command", "Search settings: many trials on one base."),
    "sweeps": Entry("raylora.cli.sweeps:command", "List, stop, resume and report sweeps."),
    "trials": Entry("raylora.cli.trials:command", "List, stop and clone trials of a sweep."),
    "evaluate": Entry(
        "raylora.cli.evaluate:command", "Score the base and adapters, and compare them row by row."
    ),
    "baseline": Entry("raylora.cli.evaluate:baseline", "Score the base alone."),
    "score": Entry(
        "raylora.cli.score:command", "Score answers to a file, and write them beside it."
    ),
    "plan": Entry("raylora.cli.plan:command", "Show what submit would start, and start nothing."),
    "jobs": Entry("raylora.cli.jobs:command", "List, follow and stop jobs."),
    "runs": Entry("raylora.cli.runs:command", "List, show, compare and sync tracked runs."),
    "adapters": Entry(
        "raylora.cli.adapters:command", "List, check, promote, import and export adapters."
    ),
    "rerun": Entry("raylora.cli.rerun:command", "Train a registered version again and compare."),
    "data": Entry("raylora.cli.data:command", "Look at rows before training on them."),
    "models": Entry("raylora.cli.models:command", "List, fetch and convert base models."),
    "serve": Entry("raylora.cli.serve:command", "Start, inspect and stop the HTTP endpoint."),
    "chat": Entry("raylora.cli.chat:command", "Talk to the base or an adapter of an endpoint."),
    "batch": Entry("raylora.cli.batch:command", "Ask every row of a file of adapters."),
    "bench": Entry("raylora.cli.bench:command", "Measure an endpoint under load."),
    "config": Entry("raylora.cli.config:command", "List, show and validate configurations."),
    "cluster": Entry("raylora.cli.cluster:command", "Start, inspect and stop the local cluster."),
    "ui": Entry("raylora.cli.ui:command", "Show MLflow's own pages of what was tracked."),
    "doctor": Entry("raylora.cli.doctor:command", "Check this machine and say what is missing."),
}


@dataclass
class Session:
    """What the error printer has to know about the invocation."""

    debug: bool = False
    json_errors: bool = False


class RootGroup(click.Group):
    """Finds commands in COMMANDS and turns every failure into a message and an exit code."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run, print the error if there is one, and exit."""
        session = Session(json_errors=_asks_for_json(sys.argv[1:] if args is None else args))
        extra |= {"obj": session, "standalone_mode": False}
        try:
            code = super().main(args, **extra)
        except Exception as error:
            code = report(error, session)
        raise SystemExit(int(code or ExitCode.OK))

    def invoke(self, ctx: click.Context) -> None:
        """Drop the command's return value: what main() sees then is an exit code or nothing."""
        super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table: from the first step to the last."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of this one command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, name = entry.target.partition(":")
        return getattr(importlib.import_module(module), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command where there is no such one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            suggestion = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"No such command {name!r}.{suggestion}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the one-line helps of the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete command names without importing the commands."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=entry.help)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=RootGroup,
    name="raylora",
    context_settings={
        "auto_envvar_prefix": "RAYLORA",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="Start with `raylora quickstart`; `raylora COMMAND --help` explains a command.",
)
@click.option("--debug", is_flag=True, show_envvar=True, help="Print tracebacks.")
@click.version_option(__version__, prog_name="raylora")
@click.pass_obj
def cli(session: Session, debug: bool) -> None:
    """Fine-tune with LoRA and QLoRA on Ray, track, register and serve: from one YAML file."""
    session.debug = debug


def main() -> NoReturn:
    """Entry point of the `raylora` script."""
    cli.main(prog_name="raylora")


def report(error: Exception, session: Session) -> ExitCode:
    """Print an error on stderr, as JSON where JSON was asked for; give its exit code."""
    if session.debug:
        _say("".join(traceback.format_exception(error)).rstrip())
    match error:
        case click.Abort():
            _say("interrupted")
            return ExitCode.INTERRUPTED
        case click.NoSuchOption() if "." in error.option_name:
            key = error.option_name.lstrip("-")
            message = f"No such option {error.option_name!r}. An override has no dashes"
            return _usage(click.UsageError(f"{message}: write {key}=VALUE.", error.ctx), session)
        case click.ClickException():
            return _usage(error, session)
        case RayloraError():
            problems = error.problems if isinstance(error, InvalidConfig) else ()
            failure = _Failure(type(error).__name__, error.message, error.hint, error.exit_code)
        case _:
            problems = ()
            failure = _Failure(
                type(error).__name__,
                f"unexpected {type(error).__name__}: {error}",
                "put --debug before the command (raylora --debug ...) to see where it comes from",
                ExitCode.FAILED,
            )
    if session.json_errors:
        fields = failure._asdict() | {"exit_code": int(failure.exit_code)}
        details = [vars(problem) for problem in problems]
        _say(json.dumps({"error": fields | ({"problems": details} if details else {})}))
        return failure.exit_code
    if problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        _say(f"{_red('error:')} the configuration has {count}")
    for problem in problems:
        where = f"  ({problem.source})" if problem.source else ""
        _say(f"\n  {_bold(problem.key or 'config')}{where}")
        _say(f"    {problem.message}\n    {problem.remedy}")
    if not problems:
        _say(f"{_red('error:')} {failure.message}")
    if failure.hint:
        _say(f"{_bold('hint:')} {failure.hint}")
    return failure.exit_code


def _asks_for_json(words: Sequence[str]) -> bool:
    """Read from the words as typed: an error in the other words comes before click's options."""
    spread = " ".join(words).replace("=", " ").replace("-ojson", "-o json").split()
    return ("--output", "json") in pairwise(spread) or ("-o", "json") in pairwise(spread)


class _Failure(NamedTuple):
    type: str
    message: str
    hint: str | None
    exit_code: ExitCode


def _usage(error: click.ClickException, session: Session) -> ExitCode:
    if session.json_errors:
        fields = {"type": "UsageError", "message": error.format_message(), "exit_code": 2}
        _say(json.dumps({"error": fields}))
    else:
        error.show()
    return ExitCode(error.exit_code)


def _say(text: str) -> None:
    click.echo(text, err=True, color=False if os.environ.get("NO_COLOR") else None)


def _red(text: str) -> str:
    return click.style(text, fg="red", bold=True)


def _bold(text: str) -> str:
    return click.style(text, bold=True)
