"""The file of keys, and the rule that an endpoint others reach has one."""

import hashlib
import threading
from pathlib import Path

import pytest

from raylora.config.compose import load_serve
from raylora.config.key_file import ApiKey, add_key, read_keys, remove_key
from raylora.errors import InvalidConfig, NotFound


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "keys.json"


def add(file: Path, name: str = "shop", **fields) -> str:
    return add_key(file, lambda sha256: ApiKey(id=name, sha256=sha256, **fields))[1]


def test_the_file_has_the_hash_and_not_the_key(file):
    secret = add(file, adapters=("home-*",))
    assert secret not in file.read_text()
    [key] = read_keys(file).keys
    assert key.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert len(secret) > 40
    assert file.stat().st_mode & 0o077 == 0


def test_names_are_unique_and_what_is_removed_is_gone(file):
    add(file)
    add(file, "other")
    with pytest.raises(InvalidConfig, match="has a key of this name"):
        add(file)
    remove_key(file, "shop")
    assert [key.id for key in read_keys(file).keys] == ["other"]
    with pytest.raises(NotFound, match="no key 'shop'"):
        remove_key(file, "shop")


def test_keys_made_at_the_same_time_are_all_kept(file):
    threads = [threading.Thread(target=add, args=(file, f"k{i}")) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.id for key in read_keys(file).keys) == sorted(f"k{i}" for i in range(20))
    assert {each.name for each in file.parent.iterdir()} == {"keys.json", "keys.json.lock"}


@pytest.mark.parametrize(
    ("patterns", "allowed", "refused"),
    [
        (("*",), ["home", "home@2", "smollm2-135m-instruct", "run:2026"], []),
        (("home",), ["home", "home@2", "home@champion"], ["homes", "sums", "run:home"]),
        (("home-*", "sums"), ["home-a", "home-b@7", "sums"], ["home", "base"]),
        (("run:*",), ["run:20260101-000000-abcdef"], ["run", "home"]),
        (("HOME",), [], ["home"]),
    ],
)
def test_patterns_are_of_names_whatever_the_version(patterns, allowed, refused):
    key = ApiKey(id="x", sha256="0" * 64, adapters=patterns)
    assert [name for name in [*allowed, *refused] if key.may_use(name)] == allowed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no key file"),
        ('{"keys": [{"id": "a"}]}', "keys.0.sha256"),
        ('{"keys": [{"id": "a", "sha256": "abc"}]}', "keys.0.sha256"),
        ('{"kyes": []}', "kyes"),
    ],
)
def test_what_is_no_key_file_is_refused_with_the_place(file, text, said):
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(InvalidConfig, match=said):
        read_keys(file)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "gpu-1.example"])
def test_a_host_that_others_reach_needs_keys(host):
    with pytest.raises(InvalidConfig) as refused:
        load_serve("quickstart", [f"host='{host}'"])
    [problem] = refused.value.problems
    assert problem.key == "keys"
    assert host in problem.message
    assert "raylora serve keys add" in problem.remedy
    assert load_serve("quickstart", [f"host='{host}'", "keys=keys.json"]).spec.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_none(host):
    assert load_serve("quickstart", [f"host='{host}'"]).spec.keys is None
