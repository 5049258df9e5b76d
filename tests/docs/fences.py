"""The fenced blocks of a page, by the heading above them."""

import re
from dataclasses import dataclass, field
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
DATA = {"jsonl": "rows.jsonl", "csv": "rows.csv"}
"""Languages of blocks that are data, and the name under which they are used."""

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^##+ (.+)$", re.MULTILINE)


@dataclass
class Case:
    """A block of data or settings, and the blocks that belong to it."""

    heading: str
    blocks: dict[str, str] = field(default_factory=dict[str, str])
    """By language: jsonl or csv, yaml, and what is to come of them."""

    def __str__(self) -> str:
        return self.heading


def cases(page: str) -> list[Case]:
    """The cases of a page: a block of a language that the case has already begins the next."""
    text = (DOCS / page).read_text(encoding="utf-8")
    headings = [(found.start(), found[1]) for found in _HEADING.finditer(text)]
    found: list[Case] = []
    for fence in _FENCE.finditer(text):
        heading = [title for start, title in headings if start < fence.start()][-1]
        language = fence[1]
        begins = not found or found[-1].heading != heading or _is_over(found[-1], language)
        if begins:
            found.append(Case(heading))
        found[-1].blocks[language] = fence[2]
    return found


def _is_over(case: Case, language: str) -> bool:
    has_data = any(data in case.blocks for data in DATA)
    return language in case.blocks or (language in DATA and has_data)


def write(case: Case, folder: Path) -> Path:
    """Put a case's data and settings into a folder; gives its configuration file."""
    for language, name in DATA.items():
        if language in case.blocks:
            (folder / name).write_text(case.blocks[language], encoding="utf-8")
    config = folder / "my.yaml"
    settings = case.blocks.get("yaml", "data:\n  train: rows.jsonl\n  validation: null\n")
    config.write_text(settings, encoding="utf-8")
    return config
