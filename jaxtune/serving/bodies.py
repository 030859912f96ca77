"""The body of a request: read within limits, and parsed."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from jaxtune.core.errors import nearest
from jaxtune.serving.inputs import Upload

JSON, FORM = "application/json", "multipart/form-data"


class Limits(NamedTuple):
    """What a request may be.

    Attributes:
      max_bytes: of its body.
      max_rows: of its inputs, and of the examples that these make.
      max_waiting: examples of all requests that may wait.
      seconds: for its body to arrive, then for its answer to be found, then for that to be taken.
    """

    max_bytes: int
    max_rows: int = 256
    max_waiting: int = 1024
    seconds: float = 30.0


class RefusedError(Exception):
    """A request that is not answered.

    Attributes:
      status: of HTTP.
      headers: of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Takes what the client is told."""
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})


def busy(message: str, seconds: int = 1) -> RefusedError:
    """The refusal of what may be asked again later."""
    return RefusedError(503, message, {"Retry-After": str(seconds)})


class Room:
    """The bytes of all bodies that are in memory."""

    def __init__(self, most: int) -> None:
        """So many may be."""
        self._left = most

    @contextmanager
    def held(self) -> Iterator["Held"]:
        """Room for one body, which is given back at the end."""
        held = Held(self)
        try:
            yield held
        finally:
            self._left += held.size

    def take(self, size: int) -> None:
        """Takes some.

        Raises:
          RefusedError: there is not so much left.
        """
        if size > self._left:
            raise busy("too much is being sent to this server: ask again later.")
        self._left -= size


class Held:
    """What one body takes of a `Room`."""

    def __init__(self, room: Room) -> None:
        """Takes nothing yet."""
        self._room, self.size = room, 0

    def more(self, size: int) -> None:
        """Takes more.

        Raises:
          RefusedError: there is no room.
        """
        self._room.take(size)
        self.size += size


async def read_body(request: Request, limits: Limits, held: Held) -> bytes:
    """The whole body.

    Raises:
      RefusedError: it is too large, or comes too slowly.
      ClientDisconnect: the client is gone.
    """
    too_large = RefusedError(
        413, f"the body has more than {limits.max_bytes} bytes: send fewer inputs a request."
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.max_bytes:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.max_bytes:
                    raise too_large
                held.more(len(part))
                parts.append(part)
    except TimeoutError:
        raise RefusedError(
            408, f"the body did not come in {limits.seconds:g} seconds.", {"Connection": "close"}
        ) from None
    return b"".join(parts)


def type_of(request: Request, is_image: bool) -> str:
    """The type of the body.

    Raises:
      RefusedError: it is none that is read.
    """
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found == JSON or (found == FORM and is_image):
        return found
    expected = f"{JSON}, or {FORM} with image files" if is_image else JSON
    raise RefusedError(415, f"the body is of type {found[:80]!r}: expected {expected}.")


async def parse(request: Request, body: bytes, content_type: str, limits: Limits) -> list[Any]:
    """The inputs of a request.

    Raises:
      RefusedError: malformed, without inputs, or with too many.
    """
    if content_type == FORM:
        inputs = await _uploads(request, body, limits)
    elif len(body) > _INLINE:
        inputs = await asyncio.to_thread(_json_inputs, body)
    else:
        inputs = _json_inputs(body)
    if not inputs:
        raise RefusedError(422, "there are no inputs: expected at least one.")
    if len(inputs) > limits.max_rows:
        raise RefusedError(
            413, f"{len(inputs)} inputs, but expected at most {limits.max_rows} a request."
        )
    return inputs


_INLINE = 1 << 16  # bytes that are parsed at once; more would keep others waiting


def _json_inputs(body: bytes) -> list[Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RefusedError(400, f"the body is no JSON: {reason[:200]}.") from None
    if not isinstance(value, dict) or not isinstance(value.get("inputs"), list):
        raise RefusedError(422, 'expected a JSON object such as {"inputs": ["a text", "another"]}.')
    others = sorted(value.keys() - {"inputs"})
    if others:
        name = others[0][:60]
        raise RefusedError(
            422,
            f"found the name {name!r} beside inputs.{nearest(name, ('inputs', 'top_k'))}"
            " top_k goes into the address: /predict?top_k=3.",
        )
    return value["inputs"]


async def _uploads(request: Request, body: bytes, limits: Limits) -> list[Upload]:
    async def whole() -> AsyncGenerator[bytes]:
        yield body

    parser = MultiPartParser(request.headers, whole(), max_files=limits.max_rows, max_fields=0)
    parser.spool_max_size = len(body) + 1  # nothing goes to the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RefusedError(400, f"the form cannot be read: {error.message}") from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        return [Upload(file.filename or "", await file.read()) for file in files]
    finally:
        await form.close()
