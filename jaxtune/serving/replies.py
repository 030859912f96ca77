"""Answers: JSON, with headers by which a browser runs, frames and keeps nothing of it."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def reply(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A value as JSON."""
    return JSONResponse(content, status, _HEADERS | dict(headers or {}))


def reply_text(
    content: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Bytes as they are."""
    return Response(content, 200, _HEADERS | dict(headers or {}), content_type)
