"""The page, in a browser where there is one: it asks, shows, and runs nothing that it is sent."""

import contextlib
import json
import re
import socket
import threading

import browser
import pytest
import uvicorn
from serving_client import LIMITS, wait_for

from jaxtune.run.saved import open_saved
from jaxtune.serving.app import make_app
from jaxtune.serving.page import load_page
from jaxtune.serving.served import Served
from jaxtune.serving.service import Service

EVIL = "<img src=x onerror=document.title='run'> the cat"


def test_the_policy_lets_the_script_of_the_page_run_and_no_other():
    page, policy = load_page()
    text = page.decode()
    assert re.search(r"script-src 'sha256-[\w+/]+='; style-src 'sha256-", policy)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
    assert not re.search(r"\son\w+=|style=|https?://", text)


@contextlib.contextmanager
def serving(folder, name):
    """The address of a server."""
    model = open_saved(folder, doc_stride=8)  # where the default leaves no room in so few tokens
    service = Service(Served(model), name, LIMITS)
    config = uvicorn.Config(make_app(service), log_config=None, ws="none", http="h11")
    server, bound = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    wait_for(lambda: service.state == "ready")
    yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def opened(tiny_weights, tmp_path):
    """A function: task, family, size of the window -> a browser with the page of a model."""
    with contextlib.ExitStack() as stack:

        def make(task, family="bert", size=(1200, 800), name=EVIL):
            address = stack.enter_context(serving(tiny_weights(task, family, 1), name))
            page = browser.Browser(tmp_path / "profile", size)
            stack.callback(page.close)
            page.call("Page.navigate", url=address)
            page.wait(
                "document.querySelector('#send') && !document.querySelector('#send').disabled"
                " && !document.querySelector('#form').hidden"
            )
            return page

        yield make


def send(page, **values):
    for name, value in values.items():
        page.run(f"document.getElementById('{name}').value = {json.dumps(value)}")
    page.run("document.getElementById('send').click()")
    page.wait("document.querySelector('.card') || !document.getElementById('error').hidden")
    return page.run("document.getElementById('results').innerText")


needs_browser = pytest.mark.skipif(browser.PROGRAM is None, reason="there is no Chromium")


@needs_browser
def test_texts_are_shown_and_not_run(opened):
    page = opened("classification")
    shown = send(page, a=f"the film is good\n\n{EVIL}\n")
    assert shown.count("JSON") == 2
    assert EVIL in shown
    assert re.search(r"\b(no|yes)\b\s+0\.\d{4}", shown)
    assert page.run("document.querySelector('h1').textContent") == EVIL
    assert page.run("document.title") == "jaxtune serve"
    assert page.run("document.images.length") == 0
    assert page.run("document.querySelector('.track span').getBoundingClientRect().width") > 10
    send(page, a="the cat " * 4000)
    page.wait("!document.getElementById('error').hidden")
    assert "more than 20000 bytes" in page.run("document.getElementById('error').innerText")


@needs_browser
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "task", ["token_classification", "question_answering", "regression", "causal_lm"]
)
def test_other_tasks(opened, task):
    page = opened(task, "gpt2" if task == "causal_lm" else "bert", (390, 844))
    more = {"b": "the film is good"} if task == "question_answering" else {}
    shown = send(page, a="the cat sat on a film", **more)
    words = {"token_classification": "PER", "causal_lm": "perplexity"}
    words["question_answering"] = r"^the cat sat on a film\s+(no answer|.*\s+the film is good)"
    assert re.search(words.get(task, r"^the cat sat on a film\s+-?\d\.\d{4}"), shown)
    assert page.run("document.documentElement.scrollWidth") <= 390
