"""The whole command, over real sockets: slow clients, and the end under load."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving_client import wait_for

from jaxtune import __main__ as console
from jaxtune.run.cli import run_command

ROOT = Path(__file__).parents[2]
SECONDS = 1.0  # of --timeout

# A shell that runs tests in the background may have them ignore SIGINT, which a child inherits.
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["jaxtune", *sys.argv[1:]]
from jaxtune.run import cli
cli.restart_with_huge_pages = lambda: None
from jaxtune.__main__ import start
start()
"""


class Server:
    def __init__(self, model, *flags):
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", START, "serve", f"--model={model}", "--port=0", *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(command, env=env, **pipes)
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                break
        assert self.process.poll() is None, self.lines
        wait_for(lambda: self.status("GET", "/health") == 200)

    def status(self, method, path, body=None):
        """Of the answer; None where the connection is refused."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.connect()
        except ConnectionRefusedError:
            return None
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    def end(self, signum):
        """(exit status, seconds, what it has written)."""
        start = time.monotonic()
        self.process.send_signal(signum)
        written, _ = self.process.communicate(timeout=60)
        return self.process.returncode, time.monotonic() - start, "".join(self.lines) + written


@pytest.fixture
def start(tiny_weights):
    servers = []

    def make(*flags):
        servers.append(Server(tiny_weights("classification", "bert", 1), *flags))
        return servers[-1]

    yield make
    for server in servers:
        server.process.kill()
        server.process.communicate()


def cut_off(client):
    """Whether the server has closed the connection."""
    client.settimeout(10 * SECONDS)
    try:
        return client.recv(1000) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "signum",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive)],
)
def test_slow_clients_hold_nobody_up_and_the_end_loses_no_request(start, signum):
    server = start(f"--timeout={SECONDS}", "--max_queue=5000")
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
    for i, client in enumerate(slow):
        if i % 3:  # some send nothing at all
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n")
    assert server.status("GET", "/health") == 200

    body = json.dumps({"inputs": ["the cat is so good"] * 20})
    sent, stop = [], threading.Event()

    def client():
        while not stop.is_set():
            begin = time.monotonic()
            try:
                status = server.status("POST", "/predict", body)
            except (ConnectionError, http.client.HTTPException) as error:
                status = error
            sent.append((begin, status))
            if status is None:
                return

    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(client) for _ in range(16)]
        try:
            wait_for(lambda: len(sent) > 50)
            assert all(cut_off(client) for client in slow)
            asked = time.monotonic()
            status, seconds, written = server.end(signum)
        finally:
            stop.set()
        for thread in waiting:
            thread.result(60)
    assert status == 0, written
    assert seconds < SECONDS + 12
    assert "Traceback" not in written
    assert "stopped" in written
    # What was connected and sent well before the signal is answered.
    accepted = [answer for begin, answer in sent if begin < asked - 0.05]
    assert len(accepted) > 50
    assert set(accepted) == {200}
    refused = [answer for begin, answer in sent if begin >= asked - 0.05]
    assert all(answer in (200, None) or isinstance(answer, Exception) for answer in refused), (
        refused
    )
    for client in slow:
        client.close()


def test_flags_that_cannot_be_meant_are_told(tmp_path, capsys):
    def told(*flags):
        assert run_command(console.run, ["serve", *flags]) == 2
        return capsys.readouterr().err

    model = f"--model={tmp_path}"
    assert "jaxtune serve needs --model" in told()
    assert "--port=70000: expected at most 65535" in told(model, "--port=70000")
    assert "--timeout=nan: expected at least 0.1" in told(model, "--timeout=nan")
    assert "--max_queue=3: expected at least --max_rows, 256" in told(model, "--max_queue=3")
    assert "takes no --prot=3. Nearest: --port=3" in told(model, "--prot=3")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = told(model, f"--port={port}")
        assert f"--host=127.0.0.1 --port={port}: Address already in use" in message
    assert str(tmp_path) in told(model, "--port=0")


def test_without_the_packages_the_extra_is_named(tmp_path, monkeypatch, capsys):
    from jaxtune.commands import serve

    monkeypatch.setattr(serve, "_NEEDED", ("starlette", "no_such_package"))
    assert run_command(console.run, ["serve", f"--model={tmp_path}"]) == 2
    assert 'needs no_such_package: pip install "jaxtune[serve]"' in capsys.readouterr().err
