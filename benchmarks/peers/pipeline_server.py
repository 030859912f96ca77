"""transformers' pipeline on torch behind the server that jaxtune serves with: Starlette, uvicorn.

    pip install torch==2.13.0 transformers==5.24.0 starlette uvicorn
    python benchmarks/peers/pipeline_server.py --model=DIR --port=N --mode=calls|batches

`calls` calls the pipeline for each request, in Starlette's pool of threads, as its documentation
does; `batches` sends what is waiting to it at once, at most `--batch_size` texts, as jaxtune does.
"""
# pyright: reportMissingImports=false

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import pipeline


class Batches:
    """Texts that wait, and the task that sends them through the pipeline."""

    def __init__(self, ask: Any, most: int) -> None:
        """Nothing waits yet."""
        self.ask, self.most = ask, most
        self.waiting: asyncio.Queue[tuple[str, asyncio.Future[Any]]] = asyncio.Queue()

    async def work(self) -> None:
        """As soon as the pipeline is free it gets what waits."""
        while True:
            items = [await self.waiting.get()]
            while len(items) < self.most and not self.waiting.empty():
                items.append(self.waiting.get_nowait())
            found = await run_in_threadpool(self.ask, [text for text, _ in items])
            for (_, future), one in zip(items, found, strict=True):
                if not future.done():
                    future.set_result(one)

    async def one(self, text: str) -> Any:
        """The answer for a text."""
        future = asyncio.get_running_loop().create_future()
        await self.waiting.put((text, future))
        return await future


def make_app(arguments: argparse.Namespace) -> Starlette:
    """The application."""
    torch.set_num_threads(arguments.threads)
    classify = pipeline("text-classification", model=arguments.model, top_k=None)
    options = {"truncation": True, "max_length": arguments.max_length}

    def ask(texts: list[str]) -> list[Any]:
        # Of like lengths, so that little is padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = classify([texts[i] for i in order], batch_size=arguments.batch_size, **options)
        return [one for _, one in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]

    batches = Batches(ask, arguments.batch_size)

    async def predict(request: Request) -> JSONResponse:
        texts = (await request.json())["inputs"]
        if arguments.mode == "batches":
            found = await asyncio.gather(*map(batches.one, texts))
        else:
            found = [await run_in_threadpool(classify, text, **options) for text in texts]
        return JSONResponse({"predictions": found})

    async def health(request: Request) -> JSONResponse:
        del request
        return JSONResponse({"status": "ready"})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        await run_in_threadpool(ask, ["to warm it up"])
        working = asyncio.create_task(batches.work())
        yield
        working.cancel()

    routes = [Route("/predict", predict, methods=["POST"]), Route("/health", health)]
    return Starlette(routes=routes, lifespan=lifespan)


def main() -> None:
    """Serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=("calls", "batches"), required=True)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    uvicorn.run(
        make_app(arguments), port=arguments.port, http="h11", access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
