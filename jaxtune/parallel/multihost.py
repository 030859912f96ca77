"""Several processes that train one model, each on its own devices: who writes, what all agree on.

`jax.distributed` connects them. In one process all of this costs nothing.
"""

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool

from jaxtune.core.errors import UserError


def join(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Connects this process with the others; must come before anything is computed.

    Args:
      coordinator_address: `HOST:PORT` of process 0; None where JAX can find it out, as under
        Slurm, Open MPI and Kubernetes.
      num_processes: in all; None likewise.
      process_id: of this one, from 0; None likewise.

    Raises:
      UserError: something that is not known, or processes that do not come.
    """
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (ValueError, TypeError, RuntimeError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"the processes cannot be connected: {first} Expected"
            " --coordinator_address=HOST:PORT of process 0, --num_processes and --process_id (from"
            " 0), or none of them under Slurm, Open MPI or Kubernetes, and all processes started"
            " within five minutes."
        ) from None


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Ends this process at once where an error ends its work, so that the others notice.

    An ordinary exit would wait for the others, and they for this one. An error of the devices' own
    is mostly the end of another process, and is told as such.
    """
    try:
        yield
    except UserError as error:
        _leave(f"error: {error}", 2)
    except LOST as error:
        first = next(iter(str(error).splitlines()), "")
        _leave(
            f"lost the others: {first}\nIf another process has ended, its output says why. The same"
            " command for all of them goes on from the last checkpoint.",
            1,
        )
    except Exception:
        _leave(traceback.format_exc(), 1)


def _leave(message: str, status: int) -> None:
    name = f"process {jax.process_index()} of {jax.process_count()}"
    print(f"{name}: {message}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    if is_first():
        time.sleep(1)  # the others, which it connects, may be about to say the same
    os._exit(status)


def is_first() -> bool:
    """Whether this process writes and speaks for all."""
    return jax.process_index() == 0


def total(values: np.ndarray) -> np.ndarray:
    """The sum over all processes."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.process_allgather(values)).sum(0)


def largest(value: int) -> int:
    """The largest value of all processes, which must ask at the same place."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def on_host(tree: Any) -> Any:
    """Arrays that several processes share, whole in each, as numpy arrays; others as they are."""

    def whole(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if leaf.is_fully_replicated:
            return np.asarray(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(whole, tree)


def share(count: int) -> Bool[np.ndarray, " n"] | None:
    """The examples of n whose states this process keeps; None for all."""
    number = jax.process_count()
    return None if number == 1 else np.arange(count) % number == jax.process_index()


def wait(name: str) -> None:
    """Until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_same(what: str, value: Any) -> None:
    """Refuses processes that were given different things.

    Args:
      what: names it, for the message.
      value: as JSON has it.

    Raises:
      UserError: in all processes, with what the first one and this one have.
    """
    if jax.process_count() == 1:
        return
    raw = json.dumps(value, sort_keys=True, default=str).encode()
    own = np.zeros(_LONGEST, np.uint8)
    own[: len(raw)] = np.frombuffer(raw, np.uint8)[:_LONGEST]
    first = np.asarray(multihost_utils.broadcast_one_to_all(own))
    if largest(int((first != own).any())):
        text = bytes(first).rstrip(b"\0").decode(errors="replace")
        raise UserError(
            f"{what} is not the same in all processes: process 0 has {text[:200]}, process"
            f" {jax.process_index()} has {raw.decode()[:200]}. Start all of them with the same"
            " command, and give all hosts the same files."
        )


LOST = (jax.errors.JaxRuntimeError, TimeoutError)
"""What a collective or a barrier raises where another process has ended."""

_LONGEST = 1 << 16  # bytes of a value that are compared
