"""A function that is asked and answered in turns."""

import threading

import pytest

from raylora.sweeps.fused.player import Asked, Ended, Player, Stopped


def test_it_asks_is_answered_and_ends():
    heard = []

    def play(player):
        heard.append(player.ask("first"))
        heard.append(player.ask("second"))
        return "done"

    player = Player(play)
    assert heard == []
    assert player.resume() == Asked("first")
    assert player.resume(1) == Asked("second")
    assert player.resume(2) == Ended("done")
    assert heard == [1, 2]


def test_what_it_raises_is_its_end():
    def play(player):
        raise ValueError("no")

    ended = Player(play).resume()
    assert isinstance(ended, Ended)
    assert str(ended.error) == "no"


def test_an_exception_is_raised_where_it_asked():
    cleaned = []

    def play(player):
        try:
            player.ask(None)
        except Exception:
            pytest.fail("nothing handles it")
        finally:
            cleaned.append(True)

    player, stopped = Player(play), Stopped()
    player.resume()
    assert player.resume(stopped) == Ended(error=stopped)
    assert cleaned == [True]


def test_all_take_turns_in_the_thread_of_whoever_resumes_them():
    """Threads of their own would each have OpenMP's beside them."""
    seen = []

    def play(player):
        seen.append(threading.get_ident())
        player.ask(None)
        seen.append(threading.get_ident())

    players = [Player(play) for _ in range(3)]
    for _ in range(2):
        for player in players:
            player.resume()
    assert set(seen) == {threading.get_ident()}
    assert len(seen) == 6


def test_a_player_may_be_resumed_by_another_ones_turn():
    def inner(player):
        return player.ask("of the inner one")

    def outer(player):
        one = Player(inner)
        asked = one.resume()
        assert isinstance(asked, Asked)
        answer = player.ask(asked.request)
        return one.resume(answer)

    player = Player(outer)
    assert player.resume() == Asked("of the inner one")
    assert player.resume("well") == Ended(Ended("well"))
