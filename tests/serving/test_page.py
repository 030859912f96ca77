"""The page, in a browser without a window where there is one: it asks, shows, and runs nothing."""

import re
import shutil

from jaxtune.serving.page import load_page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
EVIL = "<img src=x onerror='document.title=`run`'>the cat"


def test_the_policy_lets_the_script_of_the_page_run_and_no_other():
    page, policy = load_page()
    text = page.decode()
    assert re.search(r"script-src 'sha256-[\w+/]+='; style-src 'sha256-", policy)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
    assert not re.search(r"\son\w+=|style=|https?://", text)
