"""The addresses of a server: /predict, /health, /metrics, and a page to try the model."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jaxtune.serving.metrics import CONTENT_TYPE
from jaxtune.serving.page import load_page
from jaxtune.serving.replies import reply, reply_text
from jaxtune.serving.service import Service

_SECONDS_TO_CLOSE = 10.0  # for what is in the queue when all clients are gone


def make_app(service: Service) -> Starlette:
    """The application, which warms the model up when it starts."""
    page, policy = load_page()
    shown = partial(reply_text, page, "text/html", {"Content-Security-Policy": policy})

    async def health(request: Request) -> Response:
        del request
        return service.health()

    async def metrics(request: Request) -> Response:
        del request
        return reply_text(service.metrics.text(), CONTENT_TYPE)

    async def root(request: Request) -> Response:
        del request
        return shown()

    async def refused(request: Request, error: Exception) -> Response:
        del request
        assert isinstance(error, HTTPException)
        return reply({"error": error.detail}, error.status_code, error.headers)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        service.start()
        yield
        service.close(_SECONDS_TO_CLOSE)

    routes = [
        Route("/", root),
        Route("/predict", service.predict, methods=["POST"]),
        Route("/health", health),
        Route("/metrics", metrics),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: refused})
