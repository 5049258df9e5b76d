"""Runs what the pages show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.docs.fences import DATA, Case, write
from tests.templates import TEMPLATES

from raylora.config.compose import load_train
from raylora.config.data_spec import DataSpec
from raylora.jobs.check.report import Options, Report, check

BYTES_A_TOKEN = 4
"""Of the tokenizers that pages speak of; that of the tests has a token for each byte."""


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """One whose chat template knows tools."""
    return TEMPLATES["qwen2"].tokenizer()


@pytest.fixture
def checked(tmp_path: Path, tokenizer: Any) -> Callable[[Case], Report]:
    """What `raylora data check` finds in the rows of a case under its settings, none held out."""

    def look(case: Case) -> Report:
        data = load_train(str(write(case, tmp_path))).spec.data
        (name,) = (name for language, name in DATA.items() if language in case.blocks)
        whole: dict[str, object] = {"train": name, "validation": None, "validation_ratio": 0.0}
        if "message" not in case.blocks:
            whole["max_length"] = data.max_length * BYTES_A_TOKEN
        options = Options(sample=100, every_row=False, previews=100)
        return check(
            DataSpec.model_validate(data.model_dump() | whole),
            tmp_path,
            options,
            lambda: tokenizer,
        )

    return look
