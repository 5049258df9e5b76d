from pathlib import Path

import pytest

from raylora.errors import InvalidAdapter, InvalidConfig, NotFound
from raylora.tracking.adapters.promotion import promote
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.runs import RunStatus, get_run
from raylora.tracking.store import connect

TAGS = {"base.id": "smollm2", "base.revision": "abc", "lora.r": "8"}


@pytest.fixture
def registry(uri: str) -> Registry:
    return Registry(uri)


@pytest.fixture
def register(registry: Registry, start, make_adapter):
    """Trains, as it were, and registers the next version of a name."""

    def registering(name: str = "home"):
        number = _count(registry, name)
        run = start(run_id=f"run-{name}-{number}")
        files = make_adapter(f"{name}-{number}", weights=f"{name} {number}".encode())
        version = registry.register(name, run, files, tags=TAGS)
        run.finish(RunStatus.FINISHED)
        return version

    return registering


def _count(registry: Registry, name: str) -> int:
    try:
        return len(registry.show(name).versions)
    except NotFound:
        return 0


def test_a_version_is_the_directory_and_nothing_else(
    uri: str, registry: Registry, start, make_adapter
) -> None:
    run = start()
    run.log_dict({"a": 1}, "spec.yaml")
    version = registry.register("home", run, make_adapter(), tags=TAGS)
    assert str(version) == "home@1"
    assert version.run_id == run.run_id
    assert version.mlflow_run_id == run.mlflow_run_id
    assert TAGS.items() <= version.tags.items()
    assert registry.show("home").files == {
        "adapter_config.json": 8,
        "adapter_model.safetensors": 7,
        "raylora.json": 2,
    }
    assert get_run(uri, run.run_id).summary.adapter == "home@1"
    stored = connect(uri).get_model_version("home", "1")
    assert stored.status == "READY"
    assert (stored.source or "").endswith(f"{run.mlflow_run_id}/artifacts/adapter")


def test_what_references_resolve_to(registry: Registry, register) -> None:
    register("home")
    assert registry.resolve("home").version == 1
    register("home")
    register("home")
    assert str(registry.resolve("home")) == "home@3"
    promote(registry, "home@2")
    promote(registry, "home@1", "canary")
    assert str(registry.resolve("home")) == "home@2"
    assert str(registry.resolve("home@3")) == "home@3"
    assert str(registry.resolve("home@champion")) == "home@2"
    assert str(registry.resolve("home@canary")) == "home@1"
    assert registry.resolve("home@2").aliases == ("champion",)
    assert registry.aliases("home") == {"canary": 1, "champion": 2}
    details = registry.show("home@1")
    assert list(details.versions) == [1, 2, 3]
    assert details.aliases == {"canary": 1, "champion": 2}


@pytest.mark.parametrize(
    ("ref", "nearest"),
    [("hom", "home"), ("home@7", "home@1"), ("home@champon", "home@champion")],
)
def test_what_is_not_there_names_the_nearest(
    registry: Registry, register, ref: str, nearest: str
) -> None:
    promote(registry, str(register("home")))
    with pytest.raises(NotFound) as caught:
        registry.resolve(ref)
    assert nearest in str(caught.value.hint)


def test_an_empty_registry_says_so(registry: Registry) -> None:
    assert list(registry.list()) == []
    with pytest.raises(NotFound) as caught:
        registry.resolve("home")
    assert caught.value.hint == "there is no adapter yet"


def test_lists_adapters_by_name(registry: Registry, register) -> None:
    register("zebra")
    promote(registry, str(register("home")))
    register("home")
    home, zebra = registry.list()
    assert (home.name, home.newest, home.aliases) == ("home", 2, {"champion": 1})
    assert (zebra.name, zebra.newest, zebra.aliases) == ("zebra", 1, {})


def test_models_of_others_are_left_alone(
    uri: str, registry: Registry, start, make_adapter
) -> None:
    connect(uri).create_registered_model("iris")
    assert list(registry.list()) == []
    with pytest.raises(InvalidConfig, match="not raylora's"):
        registry.register("iris", start(), make_adapter(), tags={})
    for ask in (registry.resolve, registry.show, registry.ledger, registry.aliases):
        with pytest.raises(NotFound, match="no adapter 'iris'"):
            ask("iris")
    assert dict(connect(uri).get_registered_model("iris").tags) == {}


def test_a_run_registers_once(registry: Registry, start, make_adapter) -> None:
    run = start()
    first = registry.register("home", run, make_adapter(), tags=TAGS)
    again = registry.register("home", run, make_adapter("same"), tags=TAGS)
    assert again == first
    with pytest.raises(InvalidAdapter, match="registered with other files"):
        registry.register("home", run, make_adapter("other", weights=b"other"), tags=TAGS)


@pytest.mark.parametrize("name", ["home@1", "a/b", "a.b", ""])
def test_a_name_is_checked_before_anything_is_uploaded(
    registry: Registry, start, make_adapter, name: str
) -> None:
    with pytest.raises(InvalidConfig):
        registry.register(name, start(), make_adapter(), tags={})


def test_downloads_once_into_the_cache(registry: Registry, register, tmp_path: Path) -> None:
    version = register("home")
    copy = registry.download(version, tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        "adapter_model.safetensors": b"home 0",
        "adapter_config.json": b'{"r": 8}',
        "raylora.json": b"{}",
    }
    assert registry.download(version, tmp_path / "cache") == copy
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    other = registry.download(register("home"), tmp_path / "cache")
    assert other != copy


def test_a_download_of_changed_files_is_refused(
    registry: Registry, register, tmp_path: Path
) -> None:
    version = register("home")
    (Path(version.source) / "adapter_model.safetensors").write_bytes(b"tampered")
    with pytest.raises(InvalidAdapter, match="registered with other files"):
        registry.download(version, tmp_path / "cache")
    assert not any((tmp_path / "cache").rglob("*.safetensors"))


def test_an_old_copy_never_stands_in_for_a_new_store(
    registry: Registry, register, start, make_adapter, tmp_path: Path
) -> None:
    old = register("home")
    registry.download(old, tmp_path / "cache")
    connect(registry.uri).delete_registered_model("home")
    run = start(run_id="another")
    new = registry.register("home", run, make_adapter("new", weights=b"new"), tags={})
    assert str(new) == str(old)
    copy = registry.download(new, tmp_path / "cache")
    assert (copy / "adapter_model.safetensors").read_bytes() == b"new"


def test_two_threads_that_download_at_once_get_the_same_copy(
    registry: Registry, register, tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    version = register("home")
    with ThreadPoolExecutor(4) as pool:
        copies = set(pool.map(lambda _: registry.download(version, tmp_path), range(4)))
    (copy,) = copies
    assert len(list(copy.iterdir())) == 3
    assert len(list(copy.parent.iterdir())) == 1
