"""What the hub's client raises becomes an error of ours."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, errors

from raylora.errors import NotAuthorised, NotFound, Unreachable
from raylora.lora import hub

COMMIT = "b" * 40
RESPONSE: Any = SimpleNamespace(status_code=404, headers={}, request=None)


def test_a_commit_needs_no_network(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", None)
    assert hub.resolve_commit("org/model", COMMIT) == COMMIT


def test_a_branch_is_resolved(monkeypatch) -> None:
    class Info:
        sha = COMMIT

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *args, **kwargs: Info)
    assert hub.resolve_commit("org/model", "main") == COMMIT


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (errors.RepositoryNotFoundError("x", response=RESPONSE), NotFound),
        (errors.RevisionNotFoundError("x", response=RESPONSE), NotFound),
        (errors.HFValidationError("x"), NotFound),
        (errors.GatedRepoError("x", response=RESPONSE), NotAuthorised),
        (errors.OfflineModeIsEnabled("x"), Unreachable),
        (errors.HfHubHTTPError("x", response=RESPONSE), Unreachable),
        (errors.HTTPError("x"), Unreachable),  # pyright: ignore[reportPrivateImportUsage]
        (TimeoutError("x"), Unreachable),
    ],
)
def test_every_fault_of_the_client_is_mapped(monkeypatch, raised, kind) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise raised

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    with pytest.raises(kind, match="x|org/model"):
        hub.resolve_commit("org/model", "main", known=[COMMIT])


def test_the_real_client_without_a_network_is_unreachable(monkeypatch) -> None:
    def nowhere() -> HfApi:
        return HfApi(endpoint="http://127.0.0.1:9")  # the discard port, where nothing listens

    monkeypatch.setattr("huggingface_hub.HfApi", nowhere)
    with pytest.raises(Unreachable, match="does not answer for org/model at main"):
        hub.resolve_commit("org/model", "main")


def fake_snapshot(monkeypatch, *files: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def download(repo_id: str, *, revision: str, local_dir: Path, allow_patterns: list[str]):
        seen.update(repo_id=repo_id, revision=revision, patterns=allow_patterns)
        for name in files:
            (local_dir / name).touch()

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return seen


def test_code_is_fetched_only_when_it_is_trusted(monkeypatch, tmp_path: Path) -> None:
    seen = fake_snapshot(monkeypatch, "model.safetensors")
    hub.download("org/model", COMMIT, tmp_path, with_code=False)
    assert "*.py" not in seen["patterns"]
    assert not any("bin" in pattern for pattern in seen["patterns"])
    hub.download("org/model", COMMIT, tmp_path, with_code=True)
    assert "*.py" in seen["patterns"]


def test_weights_must_be_safetensors(monkeypatch, tmp_path: Path) -> None:
    fake_snapshot(monkeypatch, "config.json")
    with pytest.raises(NotFound, match=r"has no \*.safetensors weights"):
        hub.download("org/model", COMMIT, tmp_path, with_code=False)
