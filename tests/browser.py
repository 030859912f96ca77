"""A browser without a window, driven over the pipe that Chromium has for that; no other package."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)

START = """
import os, sys
one, other = (os.dup(int(number)) for number in sys.argv[1:3])
high = [os.dup2(one, 100), os.dup2(other, 101)]
for number, place in zip(high, (3, 4)):  # where Chromium looks for them
    os.dup2(number, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page. Each message is JSON with a zero byte after it."""

    def __init__(self, folder, size):
        self.numbers, self.rest, self.session = itertools.count(1), b"", None
        ours, theirs = os.pipe(), os.pipe()  # of what it reads, of what it writes
        flags = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
            *(f"--user-data-dir={folder}", "--disable-dev-shm-usage", "--no-first-run"),
            "--disable-background-networking",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(ours[0]), str(theirs[1]), PROGRAM, *flags],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.write, self.read = ours[1], theirs[0]
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def call(self, method, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == number:
                assert "error" not in found, found
                return found["result"]

    def _next(self):
        while b"\0" not in self.rest:
            part = os.read(self.read, 1 << 16)
            assert part, "the browser has ended"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def run(self, script):
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"]
        return found.get("value")

    def wait(self, script, seconds=30):
        """Until an expression is true in the page."""
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < deadline, self.run("document.body.innerText")
            time.sleep(0.05)

    def close(self):
        with contextlib.suppress(OSError):
            os.close(self.write)
        os.close(self.read)
        self.process.kill()
        self.process.wait()
