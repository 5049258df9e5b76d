"""The notebook runs from its first cell to its last, on the suite's cluster and the tiny model."""

import json
from pathlib import Path

import pytest
from tests.examples.notebook import EXAMPLES, run

from raylora.cluster.connect import Cluster

NOTEBOOK = EXAMPLES / "train.ipynb"


@pytest.mark.ray
@pytest.mark.slow
def test_it_trains_and_asks(
    local_cluster: Cluster,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {
        "messages": [
            {"role": "user", "content": "on"},
            {"role": "assistant", "content": '{"a":1}'},
        ]
    }
    rows = "".join(json.dumps(row | {"id": number}) + "\n" for number in range(4))
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    settings = {
        "config": "lora",
        "question": "on",
        "changes": [
            "name=notebook",
            *("model.source=path", f"model.id={tiny_base}", "model.name=tiny"),
            *("model.dtype=fp32", "model.max_length=512"),
            *("data.train=rows.jsonl", "data.validation=rows.jsonl", "data.system_prompt=null"),
            *("training.max_steps=4", "training.global_batch_size=4"),
            *("workers.num_workers=1", "evaluation.max_new_tokens=4"),
        ],
    }
    names = run(NOTEBOOK, settings)
    assert names["outcome"].progress.result.adapter == "notebook@1"
    assert [step["step"] for step in names["steps"]] == [1, 2, 3, 4]
    assert len(names["answers"]) == 2
    assert "rows.jsonl" in capsys.readouterr().out
