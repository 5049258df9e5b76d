"""Every example of the pages does what the page says."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from tests.docs.fences import DATA, DOCS, Case, cases, write

from raylora.cli.main import COMMANDS, cli
from raylora.config.compose import load_train
from raylora.errors import RayloraError
from raylora.jobs.check.report import Report

PAGES = ("datasets.md", "recipes.md", "troubleshooting.md", "production.md")
READ = (*PAGES, "evaluation.md", "serving.md")
"""Pages whose commands and links are looked at; what else a page shows has a test of its own."""
ALL = [case for page in PAGES for case in cases(page)]
Check = Callable[[Case], Report]


def having(*languages: str) -> list[Case]:
    return [case for case in ALL if set(languages) & set(case.blocks)]


def refused(case: Case) -> bool:
    return "message" in case.blocks


@pytest.mark.parametrize("case", [c for c in having("yaml") if not refused(c)], ids=str)
def test_settings_are_valid(case: Case, tmp_path: Path) -> None:
    assert load_train(str(write(case, tmp_path))).spec.data.train


@pytest.mark.parametrize("case", [c for c in having(*DATA) if not refused(c)], ids=str)
def test_rows_are_taken_and_learnt_as_the_page_says(case: Case, checked: Check) -> None:
    report = checked(case)
    assert report.problems == ()
    (tokens,) = report.tokens
    learnt = [
        re.sub(r"<[|]?[a-z_]+[|]?>$", "", "".join(span.tokens))
        for row in tokens.preview
        for span in row.spans
        if span.learnt
    ]
    assert learnt
    if "learnt" in case.blocks:
        assert learnt == case.blocks["learnt"].splitlines()


@pytest.mark.parametrize("case", [c for c in ALL if refused(c)], ids=str)
def test_what_is_refused_is_refused_with_that_message(
    case: Case, checked: Check, tmp_path: Path
) -> None:
    expected = case.blocks["message"].strip()
    try:
        if set(DATA) & set(case.blocks):
            problems = checked(case).problems
            said = "\n".join(f"{Path(p.file).name}:{p.line}: {p.message}" for p in problems)
        else:
            load_train(str(write(case, tmp_path)))
            said = ""
    except RayloraError as error:
        said = error.message.replace(f"{tmp_path}/", "")
    assert expected in said


@pytest.mark.parametrize("page", READ)
def test_commands_are_commands(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    commands = re.findall(r"(?m)^    raylora (.+?)(?:\s+#.*)?$", text)
    commands += re.findall(r"`raylora ([^`]+)`", text)
    assert commands
    for command in commands:
        words = [word for word in shlex.split(command.partition(" > ")[0]) if word != "--debug"]
        context = click.Context(cli)
        group: click.Command = cli
        while isinstance(group, click.Group) and words and words[0] != "...":
            found = group.get_command(context, words[0])
            assert found, command
            group, words = found, words[1:]
        if not isinstance(group, click.Group):
            group.make_context("raylora", [w for w in words if w != "..."])


def test_every_command_named_is_known() -> None:
    """So that the test above does not pass over a page by looking at nothing."""
    assert "data" in COMMANDS
    assert {"Classification", "Chat", "Code", "Tool calls"} <= {case.heading for case in ALL}


@pytest.mark.parametrize("page", READ)
def test_links_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        linked = DOCS / (file or page)
        assert linked.is_file(), target
        if linked.suffix != ".md":
            continue
        anchors = {
            title.lower().replace(" ", "-")
            for title in re.findall(r"(?m)^#+ (.+)$", linked.read_text(encoding="utf-8"))
        }
        assert not anchor or anchor in anchors, target
