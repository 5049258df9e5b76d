"""The tree of known beginnings, against a plain dictionary of them."""

from hypothesis import given
from hypothesis import strategies as st

from raylora.engine.prefixes import BLOCK, PrefixTree


def prompt(*blocks: int, rest: int = 0) -> list[int]:
    """Tokens of which each block has one number."""
    return [number for number in blocks for _ in range(BLOCK)] + [9] * rest


def insert(
    tree: PrefixTree[tuple], owner: str, tokens: list[int], limit: int = 10**9
) -> list[int]:
    """Insert with the tokens up to a block's end as its payload; which blocks were asked for."""
    asked: list[int] = []

    def payload(number: int) -> tuple:
        asked.append(number)
        return (owner, *tokens[: (number + 1) * BLOCK])

    tree.insert(owner, tokens, payload, limit)
    return asked


def test_whole_blocks_are_found_again_and_only_new_ones_are_asked_for() -> None:
    tree = PrefixTree[tuple](1)
    assert insert(tree, "a", prompt(1, 2, rest=5)) == [0, 1]
    assert insert(tree, "a", prompt(1, 2, 3)) == [2]
    assert len(tree.match("a", prompt(1, 2, 4))) == 2
    assert tree.match("a", prompt(2, 1)) == []
    assert tree.match("a", prompt(1)[:-1]) == []


def test_nothing_is_shared_between_owners() -> None:
    tree = PrefixTree[tuple](1)
    insert(tree, "a@1", prompt(1, 2))
    assert tree.match("a@2", prompt(1, 2)) == []
    assert insert(tree, "a@2", prompt(1, 2)) == [0, 1]


def test_what_was_used_longest_ago_leaves_from_its_end() -> None:
    tree = PrefixTree[tuple](1)
    insert(tree, "a", prompt(1, 2, 3), limit=4)
    insert(tree, "b", prompt(5), limit=4)
    tree.match("a", prompt(1, 2))
    insert(tree, "b", prompt(6), limit=4)
    assert len(tree.match("a", prompt(1, 2, 3))) == 2
    assert len(tree.match("b", prompt(5))) == 1


Steps = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.lists(st.integers(0, 2), max_size=5),
        st.integers(0, 12),
        st.booleans(),
    ),
    max_size=40,
)


@given(Steps)
def test_what_is_found_is_right_whole_and_within_the_limit(steps) -> None:
    tree = PrefixTree[tuple](1)
    for owner, blocks, limit, only_look in steps:
        tokens = prompt(*blocks)
        if not only_look:
            insert(tree, owner, tokens, limit)
            assert tree.bytes <= limit
            assert len(tree.match(owner, tokens)) == min(len(blocks), limit)
        for end, payload in enumerate(tree.match(owner, tokens), 1):
            assert payload == (owner, *tokens[: end * BLOCK])
    tree.shrink(0)
    assert tree.bytes == 0
