"""The page at `/`, in a real browser where there is one."""

import re
import time
from collections.abc import Iterator

import pytest
from tests.serve.browser import Page, browser
from tests.serve.edge_client import EdgeClient
from tests.serve.http_server import serving

from raylora.config.key_file import ApiKey, add_key
from raylora.config.serve_spec import ServeSpec
from raylora.serve.edge.edge import Edge
from raylora.serve.http.openai_api import create_app
from raylora.serve.http.page import page as html

ENDED = "!document.getElementById('go').disabled && document.querySelectorAll('article').length"


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(tab: Page) -> Page:
    tab.violations.clear()
    tab.requested.clear()
    return tab


@pytest.fixture
def url(endpoint) -> Iterator[str]:
    with serving(create_app(endpoint, Edge.of(ServeSpec()))) as address:
        yield address


def shown(page: Page, tag: str) -> list[str]:
    return page.run(f"Array.from(document.querySelectorAll('article {tag}'), e => e.textContent)")


def write(page: Page, field: str, text: str) -> None:
    page.run(f"document.getElementById('{field}').value = {text!r}")


def ask(page: Page, prompt: str) -> None:
    write(page, "prompt", prompt)
    page.run("document.getElementById('ask').requestSubmit()")
    page.until(ENDED)


def choose(page: Page, *models: str) -> None:
    page.run(
        "document.querySelectorAll('#models input').forEach(box => "
        f"box.checked = {list(models)!r}.includes(box.value))"
    )


def test_base_and_adapters_answer_side_by_side_with_version_and_speed(page, url, engine):
    page.open(f"{url}/")
    page.until("!document.getElementById('ask').hidden")
    assert page.run("Array.from(document.querySelectorAll('#models input'), e => e.value)") == [
        *("tiny", "home", "sums"),
    ]
    choose(page, "tiny", "home")
    write(page, "other", "home@3")
    ask(page, "hello <b>you</b>")
    assert shown(page, "h2") == ["tiny", "home@2", "home@3"]
    answers = shown(page, "pre")
    assert [answer.split("]")[0] for answer in answers] == ["[base", "[home@2", "[home@3"]
    assert all("<b>you</b>" in answer for answer in answers)
    pattern = r"\d+ tokens, first after \d\.\d\d s, \d+\.\d tokens/s"
    assert all(re.fullmatch(pattern, foot) for foot in shown(page, "footer"))
    # Each has its own system prompt, the base that of the first adapter beside it.
    assert "You are home@2." in answers[0]
    assert "You are home@3." in answers[2]
    assert engine.requests[0].sampling.temperature == 0
    assert page.violations == []
    assert page.requested
    assert all(each.startswith((f"{url}/", "data:")) for each in page.requested)


def test_text_appears_while_it_is_written_and_can_be_stopped(page, url, engine):
    engine.step_seconds = 0.03
    page.open(f"{url}/")
    page.until("!document.getElementById('ask').hidden")
    choose(page, "tiny")
    write(page, "prompt", "x" * 300)
    page.run("document.getElementById('ask').requestSubmit()")
    page.until("(document.querySelector('article pre') || {}).textContent")
    assert not page.run(ENDED)
    page.run("document.getElementById('stop').click()")
    page.until(ENDED)
    assert shown(page, "footer") == ["stopped"]
    assert 0 < len(shown(page, "pre")[0]) < 300
    deadline = time.monotonic() + 5
    while not engine.cancelled:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_failures_are_told_in_their_column_and_the_others_answer(page, url, engine):
    page.open(f"{url}/")
    page.until("!document.getElementById('ask').hidden")
    choose(page, "tiny")
    write(page, "other", "nobody")
    ask(page, "hello")
    assert shown(page, "footer")[0].endswith("tokens/s")
    assert "nobody" in shown(page, "footer")[1]
    engine.fails_after = 3
    write(page, "other", "")
    ask(page, "hello")
    assert shown(page, "footer") == ["generation failed: no luck"]


def test_the_page_asks_for_a_key_and_keeps_it_in_memory(page, endpoint, tmp_path):
    file = tmp_path / "keys.json"
    _, secret = add_key(file, lambda sha256: ApiKey(id="me", sha256=sha256, adapters=("home",)))
    with serving(create_app(endpoint, Edge.of(ServeSpec(keys=str(file))))) as url:
        page.open(f"{url}/")
        page.until("!document.getElementById('door').hidden")
        write(page, "key", "rl-wrong")
        page.run("document.getElementById('door').requestSubmit()")
        page.until("document.getElementById('where').textContent")
        assert "key" in page.run("document.getElementById('where').textContent")
        write(page, "key", secret)
        page.run("document.getElementById('door').requestSubmit()")
        page.until("!document.getElementById('ask').hidden")
        ask(page, "hello")
        assert shown(page, "h2") == ["home@2"]
        kept = "localStorage.length + sessionStorage.length + document.cookie.length"
        assert page.run(kept) == 0
        assert page.run("document.getElementById('key').value") == ""
        page.open(f"{url}/")
        page.until("!document.getElementById('door').hidden")


def test_nothing_else_is_loaded_and_no_other_page_may_frame_it(endpoint):
    answer = EdgeClient(endpoint, Edge()).get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", policy)) == 2
    assert "frame-ancestors 'none'" in policy
    assert answer.text == html()
    assert re.findall(r"(?:src|href)=\"(?!data:)", answer.text) == []
    assert re.findall(r"https?://|innerHTML|style=|onclick", answer.text) == []
    assert len(answer.content) < 20_000


def test_the_policy_does_stop_what_is_not_the_pages_own(page, url):
    """So that a page without violations says something."""
    page.open(f"{url}/")
    page.run("document.body.append(Object.assign(document.createElement('script'), {text: '1'}))")
    page.until("true")
    assert any("Content Security Policy" in text for text in page.violations)
