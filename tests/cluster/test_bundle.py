"""The spec, the files it names and the package travel; nothing else, and not too much."""

import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from raylora.cluster import bundle, staging
from raylora.cluster.bundle import build
from raylora.errors import InvalidConfig

SPEC = "name: demo\ndata:\n  train: rows.jsonl\n  validation: null\n"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"messages": []}\n')
    return path


def test_named_files_get_the_name_of_their_content(rows: Path) -> None:
    built = build(SPEC, {"data.train": rows})
    spec = yaml.safe_load((built.working_dir / "spec.yaml").read_text())
    assert spec["data"]["train"] == f"files/{staging.sha256_of(rows)[:16]}-rows.jsonl"
    assert (built.working_dir / spec["data"]["train"]).read_text() == rows.read_text(
        encoding="utf-8"
    )
    assert spec["name"] == "demo"
    assert spec["data"]["validation"] is None
    assert built.size == rows.stat().st_size


def test_a_jobs_words_call_a_shipped_file_by_its_own_name(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    rows.rename(tmp_path / "folder" / "rows.jsonl")
    for named in ("folder/rows.jsonl", "folder", "folder/*.jsonl"):
        [file] = build(SPEC, {"data.train": tmp_path / named}).files
        name = "folder/rows.jsonl" if named == "folder" else "rows.jsonl"
        for place in (file.path, f"/tmp/ray/working_dir/{file.path}"):
            assert bundle.as_named(f"{place}:3: not JSON") == f"{name}:3: not JSON"
    assert bundle.as_named("/data/files/rows.jsonl:3") == "/data/files/rows.jsonl:3"


def test_nothing_but_the_spec_and_its_files_is_in_the_folder(rows: Path) -> None:
    (rows.parent / "secret.txt").write_text("x")
    built = build(SPEC, {"data.train": rows})
    names = sorted(path.name for path in built.working_dir.rglob("*") if path.is_file())
    assert names == [f"{staging.sha256_of(rows)[:16]}-rows.jsonl", "spec.yaml"]


def test_the_same_content_is_staged_once_and_other_content_apart(rows: Path) -> None:
    first = build(SPEC, {"data.train": rows})
    assert build(SPEC, {"data.train": rows}).working_dir == first.working_dir
    rows.write_text("changed\n", encoding="utf-8")
    second = build(SPEC, {"data.train": rows})
    assert second.working_dir != first.working_dir
    assert (first.working_dir / first.files[0].path).read_text() == '{"messages": []}\n'


def test_two_that_stage_at_once_both_get_the_whole(rows: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        built = list(pool.map(lambda _: build(SPEC, {"data.train": rows}), range(16)))
    assert len({one.working_dir for one in built}) == 1
    assert (built[0].working_dir / "spec.yaml").is_file()


def test_too_much_is_refused_naming_the_largest_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    big, small = tmp_path / "big.jsonl", tmp_path / "small.jsonl"
    with big.open("wb") as file:
        file.truncate(bundle.LIMIT_BYTES - 10)
    small.write_bytes(b"x" * 11)
    with pytest.raises(InvalidConfig, match=r"big\.jsonl.*small\.jsonl.*file:///shared") as caught:
        build(SPEC, {"data.validation": small, "data.train": big})
    assert caught.value.problems[0].key == "data.train"
    assert not own_home.exists()
    small.write_bytes(b"x" * 10)
    build(SPEC, {"data.train": big, "data.validation": small})


def test_folders_and_globs_keep_the_names_of_their_files(tmp_path: Path) -> None:
    for name in ("a/train.jsonl", "a/sub/test.jsonl", "a/.hidden/x.jsonl", "a/other.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    spec = "data:\n  train: a\n  mixture:\n  - source: x\n  - source: y\n"
    named = {"data.train": tmp_path / "a", "data.mixture.1.source": tmp_path / "a/*.jsonl"}
    built = build(spec, named)
    data = yaml.safe_load((built.working_dir / "spec.yaml").read_text(encoding="utf-8"))["data"]
    folder = built.working_dir / data["train"]
    shipped = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert shipped == {"train.jsonl", "sub/test.jsonl", "other.txt"}
    assert data["mixture"][0] == {"source": "x"}
    pattern = data["mixture"][1]["source"]
    assert [path.name for path in built.working_dir.glob(pattern)] == ["train.jsonl"]
    assert build(spec, named).working_dir == built.working_dir
    (tmp_path / "a/train.jsonl").write_text("changed", encoding="utf-8")
    assert build(spec, named).working_dir != built.working_dir


def test_every_missing_file_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        build(
            SPEC,
            {
                "data.train": tmp_path / "no",
                "data.validation": tmp_path,
                "data.chat_template": tmp_path / "*.jinja",
            },
        )
    assert [
        (problem.key, problem.message.rpartition(": ")[2]) for problem in caught.value.problems
    ] == [
        ("data.train", "there is no such file"),
        ("data.validation", "the folder holds no file"),
        ("data.chat_template", "no file matches"),
    ]


def test_old_folders_go(own_home: Path) -> None:
    for index in range(4):
        staging.stage("things", {"a": str(index).encode()}, keep=2)
    assert len(list((own_home / "things").iterdir())) == 2


def test_rooms_are_the_ones_the_build_maps() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    mapped = project["tool"]["setuptools"]["package-dir"]
    assert {f"raylora.{room}" for room in staging.ROOMS} == set(mapped) - {"raylora"}


def test_the_staged_package_works_on_its_own(tmp_path: Path) -> None:
    tree = build(SPEC).package
    script = (
        "import raylora.jobs, raylora.cluster.jobs as m; print(raylora.jobs.__file__, m.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(tree.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count(str(tree)) == 2
    shipped = {path.relative_to(tree).as_posix() for path in tree.rglob("*.py")}
    assert {"errors.py", "jobs/__init__.py", "configs/__init__.py", "serve/__init__.py"} <= shipped
