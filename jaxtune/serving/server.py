"""The process that serves: a socket, connections, signals, and the end."""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

import uvicorn

from jaxtune.core.errors import UserError
from jaxtune.serving.app import make_app
from jaxtune.serving.service import Service

_BACKLOG = 2048  # connections that wait to be accepted
_KEEP_ALIVE = 5  # seconds for the next request on a connection
_LEFT_BEHIND = 10.0  # seconds that threads have to end


def bind(host: str, port: int) -> socket.socket:
    """A socket of that address, to which nobody can connect yet.

    Raises:
      UserError: there is no such address, or another program has it.
    """
    found = None
    try:
        family, kind, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind)
        if os.name == "posix":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        if found is not None:
            found.close()
        raise UserError(
            f"--host={host} --port={port}: {error.strerror or error}. Choose another;"
            " --port=0 takes a free one."
        ) from None
    return found


def address_of(bound: socket.socket) -> str:
    """What a person types into a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(service: Service, bound: socket.socket, seconds: float) -> None:
    """Serves until SIGTERM or SIGINT; then answers what has been asked, and refuses connections.

    A second SIGINT ends it at once.

    Args:
      service: what is served.
      bound: from `bind`.
      seconds: that a client may take to ask, and to take the answer.

    Raises:
      Exception: the model could not be warmed up.
    """
    config = uvicorn.Config(
        make_app(service),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=round(seconds) + 1,
    )
    server = uvicorn.Server(config)
    # uvicorn raises the signal that ended it once more, after it has ended well.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: None)
    asyncio.run(_serve(server, service, bound, seconds))
    if service.failure is not None:
        raise service.failure
    _end_in_time()


async def _serve(
    server: uvicorn.Server, service: Service, bound: socket.socket, seconds: float
) -> None:
    watching = asyncio.create_task(_watch(server, service, seconds))
    try:
        await server.serve(sockets=[bound])
    finally:
        watching.cancel()


async def _watch(server: uvicorn.Server, service: Service, seconds: float) -> None:
    """Cuts off who is too slow to send a head or to take an answer, which uvicorn waits for."""
    since: dict[Any, tuple[Any, float]] = {}
    while True:
        await asyncio.sleep(min(seconds / 4, 1.0))
        if service.failure is not None:
            server.should_exit = True
        now, seen = time.monotonic(), {}
        for connection in list(server.server_state.connections):
            phase = _phase(connection)
            before, begin = since.get(connection, (None, now))
            seen[connection] = (phase, begin if before == phase else now)
            if phase is not None and now - seen[connection][1] > seconds:
                connection.transport.abort()
        since = seen


def _phase(connection: Any) -> Any:
    """What a connection is waiting for; None where it is for the model."""
    cycle = connection.cycle
    if cycle is None or cycle.response_complete:
        return ("head", id(cycle))
    return ("taking", id(cycle)) if cycle.response_started else None


def _end_in_time() -> None:
    """Ends the process at once where a thread, such as one that compiles, would hold it."""
    deadline = time.monotonic() + _LEFT_BEHIND
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(max(deadline - time.monotonic(), 0.0))
            if thread.is_alive():
                sys.stdout.flush()
                os._exit(0)
