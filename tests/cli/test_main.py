"""The command group: thin to import, and the one place that prints an error."""

import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from raylora import __version__
from raylora.cli.main import COMMANDS, Entry, cli
from raylora.cli.options import config_argument, output_option, overrides_argument
from raylora.errors import InvalidConfig, NotAuthorised, NotFound, Problem, Unreachable

RAYLORA = Path(sys.executable).with_name("raylora")
HEAVY = ("pydantic", "rich", "ray", "mlflow", "torch", "hydra", "yaml")

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """Run `raylora [first] probe [words]`, a command that raises the given error."""
    module = types.ModuleType("raylora_probe")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(COMMANDS, "probe", Entry(f"{module.__name__}:command", "Raise."))

    def invoke(error: BaseException | None, *words: str, first: tuple[str, ...] = ()) -> Result:
        @click.command()
        @output_option
        @config_argument
        @overrides_argument
        def command(output: str, config: str, overrides: tuple[str, ...]) -> int:
            if error is not None:
                raise error
            return 7

        module.command = command  # type: ignore[attr-defined]
        return CliRunner().invoke(cli, [*first, "probe", "x", *words])

    yield invoke


def test_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys; from raylora.cli.main import cli\n"
        "try: cli.main(['--help'])\n"
        f"except SystemExit: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for name, entry in COMMANDS.items():
        assert name in done.stdout
        assert entry.help in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_line_in_the_table_is_true(name: str) -> None:
    module, _, attribute = COMMANDS[name].target.partition(":")
    command = getattr(__import__(module, fromlist=[attribute]), attribute)
    assert isinstance(command, click.Command)
    assert command.help


def test_version_and_unknown_command() -> None:
    runner = CliRunner()
    assert __version__ in runner.invoke(cli, ["--version"]).output
    result = runner.invoke(cli, ["sbumit"])
    assert result.exit_code == 2
    assert "Did you mean submit?" in result.stderr


def test_no_command_at_all_is_usage() -> None:
    done = subprocess.run([RAYLORA], capture_output=True, text=True, check=False)
    assert (done.returncode, "Usage" in done.stderr) == (2, True)


def test_completion_names_commands() -> None:
    env = {"_RAYLORA_COMPLETE": "zsh_complete", "COMP_WORDS": "raylora ad", "COMP_CWORD": "1"}
    done = subprocess.run([RAYLORA], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[:2] == ["plain", "adapters"]


def test_success_is_zero_whatever_a_command_returns(invoke: Invoke) -> None:
    assert invoke(None).exit_code == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("no such run"), 5),
        (Unreachable("no such run"), 3),
        (NotAuthorised("no such run"), 4),
        (click.UsageError("no such run"), 2),
        (click.ClickException("no such run"), 1),
        (RuntimeError("no such run"), 1),
    ],
)
def test_an_error_is_one_message_on_stderr_and_its_code(
    invoke: Invoke, error: Exception, code: int
) -> None:
    result = invoke(error)
    assert result.exit_code == code
    assert result.stdout == ""
    assert "no such run" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_is_130(invoke: Invoke, error: BaseException) -> None:
    result = invoke(error)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


def test_exit_codes_of_commands_pass_through(invoke: Invoke) -> None:
    assert invoke(click.exceptions.Exit(3)).exit_code == 3
    assert invoke(SystemExit(4)).exit_code == 4


def test_the_hint_follows_the_message(invoke: Invoke) -> None:
    lines = invoke(NotFound("no such run", hint="raylora runs list")).stderr.splitlines()
    assert lines == ["error: no such run", "hint: raylora runs list"]


def test_every_problem_of_a_configuration_is_printed(invoke: Invoke) -> None:
    problems = [Problem("lora.r", "found 0", "Write 1.", "a.yaml:3"), Problem("", "bad", "Mend.")]
    assert invoke(InvalidConfig(problems)).stderr.splitlines() == [
        "error: the configuration has 2 problems",
        "",
        "  lora.r  (a.yaml:3)",
        "    found 0",
        "    Write 1.",
        "",
        "  config",
        "    bad",
        "    Mend.",
    ]


def test_errors_are_json_where_the_output_is(invoke: Invoke) -> None:
    problem = Problem("lora.r", "found 0", "Write 1.", "a.yaml:3")
    error = json.loads(invoke(InvalidConfig([problem]), "--output", "json").stderr)["error"]
    assert (error["type"], error["exit_code"]) == ("InvalidConfig", 5)
    assert error["problems"] == [vars(problem)]
    usage = json.loads(invoke(None, "-o", "json", "--nope").stderr)["error"]
    assert (usage["type"], usage["exit_code"]) == ("UsageError", 2)


def test_a_traceback_only_with_debug(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke(RuntimeError("boom"))
    assert "Traceback" not in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" in invoke(RuntimeError("boom"), first=("--debug",)).stderr
    monkeypatch.setenv("RAYLORA_DEBUG", "1")
    assert "Traceback" in invoke(NotFound("nothing")).stderr


def test_an_override_with_dashes_says_how_to_write_it(invoke: Invoke) -> None:
    result = invoke(None, "--lora.r=3")
    assert result.exit_code == 2
    assert "write lora.r=VALUE" in result.stderr
