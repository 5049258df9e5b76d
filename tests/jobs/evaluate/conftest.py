"""A tiny base with two adapters on it, asked as an evaluation asks."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from raylora.config.evaluate_spec import AskedSpec, EvaluateSpec
from raylora.jobs.evaluate.examiner import Examiner
from raylora.jobs.evaluate.subject import THE_BASE, Subject


def row(asked: str, answer: str, **more: object) -> dict[str, object]:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[..., Path]:
    """Write rows; gives the file."""

    def write(*rows: dict[str, Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def peft_adapter(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Callable[..., Path]:
    """Save an adapter as PEFT does, with weights that change answers."""
    root = tmp_path_factory.mktemp("adapters")

    def make(name: str, seed: int, **fields: Any) -> Path:
        folder = root / name
        if not folder.exists():
            model: Any = LlamaForCausalLM.from_pretrained(tiny_base)
            adapted: Any = get_peft_model(
                model,
                LoraConfig(
                    r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **fields
                ),
            )
            torch.manual_seed(seed)
            with torch.no_grad():
                for key, weight in adapted.named_parameters():
                    if "lora_B" in key:
                        weight.normal_(std=0.5)
            adapted.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def tiny_spec(tiny_base: Path) -> Callable[..., EvaluateSpec]:
    """A spec for the tiny base."""

    def make(*datasets: AskedSpec, **fields: Any) -> EvaluateSpec:
        model = {"source": "path", "id": str(tiny_base), "name": "tiny", "dtype": "fp32"}
        given: dict[str, Any] = {
            "model": model | {"max_length": 160},
            "datasets": datasets,
            "evaluation": {"max_new_tokens": 6, "batch_size": 4},
        }
        return EvaluateSpec.model_validate(given | fields)

    return make


@pytest.fixture
def examiner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Examiner]:
    """Base and folders ready to be asked, in the test's folder."""
    monkeypatch.chdir(tmp_path)

    def make(spec: EvaluateSpec, folders: Sequence[Path] = ()) -> Examiner:
        named = [Subject(folder.name, folder.name, folder) for folder in folders]
        return Examiner(spec, [THE_BASE, *named])

    return make
