"""`raylora serve keys`: who may use an endpoint, what of it and how fast."""

from pathlib import Path

import click
from pydantic import ValidationError

from raylora.cli.options import output_option
from raylora.cli.output import emit, make_table, next_commands, note
from raylora.config.key_file import EVERYTHING, ApiKey, add_key, now, read_keys, remove_key
from raylora.config.places import home
from raylora.errors import InvalidConfig, Problem

COLUMNS = ("key", "adapters", "requests/min", "tokens/min", "admin", "created")

file_option = click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="RAYLORA_KEYS",
    show_envvar=True,
    help="Key file. Without it: keys.json in RAYLORA_HOME.",
)


@click.group("keys")
def command() -> None:
    """Make, list and remove the keys of an endpoint that runs with keys=FILE.

    A running endpoint reads the file again when it changes. The file holds hashes, not keys.
    """


@command.command("add")
@click.argument("name")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="PATTERN",
    help="Name of an adapter or the base that it may use, with * and ?; may be repeated. "
    "Without it: all.",
)
@click.option("--requests-per-minute", type=click.IntRange(1), help="Without it: no limit.")
@click.option(
    "--tokens-per-minute",
    type=click.IntRange(1),
    help="Prompts and answers together. Without it: no limit.",
)
@click.option("--admin", is_flag=True, help="May read metrics, load and unload adapters.")
@file_option
@output_option
def add(
    name: str,
    adapters: tuple[str, ...],
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    admin: bool,
    file: Path | None,
    output: str,
) -> None:
    """Make a key, and print it: it is not kept and cannot be shown again."""
    path = _path(file)

    def entry(sha256: str) -> ApiKey:
        try:
            return ApiKey(
                id=name,
                sha256=sha256,
                adapters=adapters or (EVERYTHING,),
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
                admin=admin,
                created=now(),
            )
        except ValidationError as error:
            fields = dict.fromkeys(each["loc"][0] for each in error.errors())
            raise InvalidConfig([_problem(field) for field in fields]) from error

    made, secret = add_key(path, entry)
    shown = {"key": made.id, "secret": secret, "file": str(path.absolute())}
    emit(shown, output, lambda: secret)
    if output == "table":
        note(f"the key {made.id} is in {path}; this is the only time it is shown")
        next_commands(
            [f"raylora serve up keys={path}", "export RAYLORA_API_KEY=...", "raylora chat hello"]
        )


@command.command("list")
@file_option
@output_option
def list_keys(file: Path | None, output: str) -> None:
    """Show the keys of the file, without the keys themselves."""
    keys = read_keys(_path(file)).keys
    emit(
        [key.model_dump(mode="json", exclude={"sha256"}) for key in keys],
        output,
        lambda: make_table(
            COLUMNS,
            [
                (
                    *(key.id, list(key.adapters), key.requests_per_minute),
                    *(key.tokens_per_minute, key.admin, key.created),
                )
                for key in keys
            ],
        ),
    )


@command.command("remove")
@click.argument("name")
@file_option
@output_option
def remove(name: str, file: Path | None, output: str) -> None:
    """Take a key out of the file; a running endpoint refuses it from then on."""
    path = _path(file)
    remove_key(path, name)
    emit({"removed": name, "file": str(path)}, output)


def _path(given: Path | None) -> Path:
    return given or home() / "keys.json"


def _problem(field: object) -> Problem:
    if field == "id":
        return Problem(
            "NAME",
            "this is no name of a key",
            "Write 1 to 64 letters, digits, _ and -, a letter or digit first",
        )
    return Problem(
        "--adapter",
        "this is no pattern of names",
        "Write letters, digits, _, - and ., with * and ? for any",
    )
