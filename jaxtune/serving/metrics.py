"""What is counted while a model serves, for Prometheus."""

from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics(NamedTuple):
    """Counters of one server.

    Attributes:
      registry: of all of them.
      requests: to `/predict`, by `code` of the answer.
      rows: inputs that were answered.
      seconds: from the head of a request to its answer.
      batch_size: examples of each batch.
    """

    registry: CollectorRegistry
    requests: Counter
    rows: Counter
    seconds: Histogram
    batch_size: Histogram

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)


def make_metrics(num_waiting: Callable[[], float], is_ready: Callable[[], bool]) -> Metrics:
    """Counters at 0.

    Args:
      num_waiting: examples in the queue.
      is_ready: whether requests are answered.
    """
    registry = CollectorRegistry()
    waiting = Gauge("jaxtune_queue_rows", "Examples that no batch has taken", registry=registry)
    waiting.set_function(num_waiting)
    ready = Gauge("jaxtune_ready", "1 where requests are answered", registry=registry)
    ready.set_function(lambda: float(is_ready()))
    return Metrics(
        registry,
        Counter("jaxtune_requests", "Requests to /predict", ["code"], registry=registry),
        Counter("jaxtune_rows", "Inputs that were answered", registry=registry),
        Histogram(
            "jaxtune_request_seconds", "Time to the answer", buckets=_SECONDS, registry=registry
        ),
        Histogram("jaxtune_batch_rows", "Examples of a batch", buckets=_SIZES, registry=registry),
    )
