"""A model that is being served: warming up, answering, stopping; and what becomes of a request."""

import asyncio
import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from jaxtune import __version__
from jaxtune.core.errors import UserError
from jaxtune.serving.batcher import Batcher, ClosedError, NotFiniteError, Outputs, QueueFullError
from jaxtune.serving.bodies import (
    Limits,
    RefusedError,
    Room,
    busy,
    parse,
    read_body,
    type_of,
)
from jaxtune.serving.metrics import make_metrics
from jaxtune.serving.replies import reply
from jaxtune.serving.served import ENCODERS, Encoded, Served
from jaxtune.tasks.task import check_top_k

State = Literal["starting", "ready", "stopping", "failed"]

_BODIES = 16  # of the largest size, that may be in memory at once
_INLINE = 16  # rows whose records are made at once; more would keep other clients waiting
_CLIENT_LEFT = 499  # nginx's code: of no answer, for nobody takes it


class Service:
    """One model and its clients.

    Attributes:
      state: `ready` where requests are answered.
      failure: why it cannot go on, where it cannot.
      metrics: what is counted.
    """

    def __init__(self, served: Served, name: str, limits: Limits) -> None:
        """Compiles nothing before `start`.

        Args:
          served: the model.
          name: by which clients know it.
          limits: of requests.
        """
        self.state: State = "starting"
        self.failure: Exception | None = None
        self._served, self._name, self._limits = served, name, limits
        self._room = Room(_BODIES * limits.max_bytes)
        self._encoders = ThreadPoolExecutor(ENCODERS, "encoding")
        self.metrics = make_metrics(
            lambda: self._batcher.num_waiting, lambda: self.state == "ready"
        )
        self._batcher = Batcher(
            served.run, served.grid, limits.max_waiting, self.metrics.batch_size.observe
        )

    def start(self) -> None:
        """Compiles all shapes in a thread of its own; then requests are answered."""
        threading.Thread(target=self._warm_up, name="warming up", daemon=True).start()

    def close(self, seconds: float) -> None:
        """Answers what is in the queue, and nothing after it.

        Args:
          seconds: that this may take.
        """
        self.state = "stopping"
        self._batcher.close(seconds)
        self._encoders.shutdown(wait=False, cancel_futures=True)

    def health(self) -> Response:
        """What is served, and whether."""
        saved, asked = self._served.saved, self._served.asked
        told = {
            "status": self.state,
            "model": self._name,
            "sha256": saved.pretrained.sha256,
            "version": __version__,
            "task": saved.task.name,
            "inputs": "texts or pairs" if asked.may_be_pairs else asked.kind,
            "columns": asked.columns,
        }
        return reply(told, 200 if self.state == "ready" else 503)

    async def predict(self, request: Request) -> Response:
        """The answer to one request, whatever becomes of it."""
        start, count = time.perf_counter(), 0
        response: Response
        try:
            records = await self._records(request)
            response = await _rendered(records)
            count = len(records)
        except RefusedError as error:
            response = reply({"error": str(error)}, error.status, error.headers)
        except UserError as error:
            response = reply({"error": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)
        except ClientDisconnect:
            response = Response(status_code=_CLIENT_LEFT)
        except NotFiniteError:
            response = reply({"error": _DAMAGED}, HTTPStatus.INTERNAL_SERVER_ERROR)
        except Exception:
            logging.getLogger(__name__).exception("a request failed")
            response = reply({"error": _FAILED}, HTTPStatus.INTERNAL_SERVER_ERROR)
        self.metrics.requests.labels(str(response.status_code)).inc()
        self.metrics.rows.inc(count)
        self.metrics.seconds.observe(time.perf_counter() - start)
        return response

    def _warm_up(self) -> None:
        try:
            for _ in self._served.warm_up():
                if self.state != "starting":
                    return
        except Exception as error:
            self.failure, self.state = error, "failed"
            return
        self.state = "ready"

    async def _records(self, request: Request) -> list[dict[str, Any]]:
        """A record for each input of a request."""
        if self.state != "ready":
            raise busy(_NOT_READY[self.state], _STARTING)
        top_k = self._top_k(request)
        encoded, deadline = await self._encoded(request)
        try:
            future = self._batcher.submit(encoded.ready)
        except QueueFullError:
            raise busy("too many inputs are waiting: ask again later.") from None
        except ClosedError:
            raise busy("this server is stopping.") from None
        outputs = await self._outputs(request, future, deadline)
        arguments = (encoded, outputs, top_k)
        if len(encoded.rows.inputs) > _INLINE:
            return await asyncio.to_thread(self._served.records, *arguments)
        return self._served.records(*arguments)

    async def _encoded(self, request: Request) -> tuple[Encoded, float]:
        """The examples of a request, and by when it must be answered."""
        limits, loop = self._limits, asyncio.get_running_loop()
        content_type = type_of(request, self._served.asked.kind == "images")
        with self._room.held() as held:
            body = await read_body(request, limits, held)
            deadline = loop.time() + limits.seconds
            inputs = await parse(request, body, content_type, limits)
            try:
                async with asyncio.timeout_at(deadline):
                    encoded = await loop.run_in_executor(
                        self._encoders, self._served.encode, inputs
                    )
            except TimeoutError:
                raise _late(limits) from None
        count = len(encoded.ready.lengths)
        if count > limits.max_rows:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the inputs are cut into {count} parts, as the model reads them, but expected at"
                f" most {limits.max_rows} a request: send fewer or shorter ones.",
            )
        return encoded, deadline

    async def _outputs(self, request: Request, future: Future[Outputs], deadline: float) -> Outputs:
        """What the model gives, unless the client leaves or time is up."""
        answer = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(request.receive())  # which says next that the client has left
        left = max(deadline - asyncio.get_running_loop().time(), 0.0)
        try:
            await asyncio.wait((answer, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            raise ClientDisconnect if gone.done() else _late(self._limits)
        finally:
            gone.cancel()
            answer.cancel()  # takes its examples out of the queue

    def _top_k(self, request: Request) -> int | None:
        """How many classes are told of, from the address; None for all."""
        text = request.query_params.get("top_k")
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) < _DIGITS):
            raise RefusedError(422, f"top_k is {text[:60]!r}: expected a whole number.")
        check_top_k(self._served.saved.task, int(text))
        return int(text)


_STARTING = 5  # seconds
_NOT_READY = {
    "starting": "the model is starting: ask again later.",
    "stopping": "this server is stopping.",
    "failed": "the model could not be started; the log of the server has more.",
}
_DIGITS = 10
_FAILED = "the server failed at this request; its log has more."
_DAMAGED = "the model gives outputs that are not finite: its weights are damaged."


def _late(limits: Limits) -> RefusedError:
    return RefusedError(
        504, f"no answer within {limits.seconds:g} seconds: ask again later, or for less at once."
    )


async def _rendered(records: list[dict[str, Any]]) -> Response:
    content = {"predictions": records}
    return reply(content) if len(records) <= _INLINE else await asyncio.to_thread(reply, content)
