import pytest

from raylora.errors import InvalidConfig
from raylora.tracking.adapters.reference import Reference, parse, parse_alias


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("home", Reference("home")),
        ("home@7", Reference("home", version=7)),
        ("home@champion", Reference("home", alias="champion")),
        ("Home_2-b@v2-candidate", Reference("Home_2-b", alias="v2-candidate")),
    ],
)
def test_reads_and_writes_references(text: str, expected: Reference) -> None:
    assert parse(text) == expected
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "Use letters"),
        ("../../etc", "Use letters"),
        ("a/b@1", "Use letters"),
        ("home.v1", "Use letters"),
        ("x" * 65, "Use letters"),
        ("home@", "Use letters"),
        ("home@a@b", "Use letters"),
        ("home@a b", "Use letters"),
        ("home@v7", "Write the version as @7"),
        ("home@V07", "Write the version as @7"),
        ("home@007", "Write the version as @7"),
        ("home@0", "Versions start at 1"),
        ("home@latest", "Name a version or an alias"),
    ],
)
def test_says_what_to_write_instead(text: str, remedy: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse(text)
    (problem,) = caught.value.problems
    assert problem.remedy.startswith(remedy)


@pytest.mark.parametrize("alias", ["7", "v7", "V12", "latest", "Latest", "", "a.b", "-x"])
def test_an_alias_is_never_a_version(alias: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_alias(alias)
