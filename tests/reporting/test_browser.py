"""The page in a browser, where there is one: it is as wide as the screen, and asks for nothing."""

import json
import re
import shutil
import subprocess

import pytest

from jaxtune.reporting.write import write
from jaxtune.run.console import Report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

PROBE = """<script>
const found = {policy: [], width: document.documentElement.scrollWidth};
addEventListener('securitypolicyviolation', e => found.policy.push(e.blockedURI));
addEventListener('load', () => {
  const figures = [...document.querySelectorAll('figure svg')];
  found.svg = figures.map(e => e.getBoundingClientRect().height);
  found.cut = [...document.querySelectorAll('body > section > *')].filter(
    e => e.scrollWidth > innerWidth && getComputedStyle(e).overflowX == 'visible').length;
  found.screen = innerWidth;
  document.body.setAttribute('data-found', JSON.stringify(found));
});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="there is no browser")
@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_fits_the_screen(width, workdir_of, tmp_path):
    workdir = workdir_of("classification")
    write(workdir, Report(quiet=True))
    text = (workdir / "report.html").read_text(encoding="utf-8")
    policy = "script-src 'unsafe-inline'; default-src"  # of the probe alone
    page = tmp_path / "probed.html"
    page.write_text(text.replace("default-src", policy, 1).replace("</head>", f"{PROBE}</head>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'p'}"]
    found = subprocess.run(
        [BROWSER, *flags, f"--window-size={width},900", "--dump-dom", f"file://{page}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (told,) = re.findall(r'data-found="([^"]*)"', found.stdout)
    seen = json.loads(told.replace("&quot;", '"'))
    assert seen["policy"] == []
    assert seen["screen"] <= width
    assert seen["width"] <= seen["screen"]
    assert seen["cut"] == 0
    assert len(seen["svg"]) >= 5
    assert min(seen["svg"]) > 100
