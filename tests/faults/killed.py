"""Trains as the command does, and ends itself by SIGKILL at an aimed moment.

python killed.py MOMENT COUNT FLAG...: when MOMENT has come COUNT times.
"""

import os
import signal
import sys

from jaxtune import main
from jaxtune.frozen.store import ActivationCache
from jaxtune.io import atomic
from jaxtune.run import loop
from jaxtune.run.checkpoint import Checkpoints
from jaxtune.run.scorer import Scorer

PLACES = {
    "step": (loop, "_step", "before"),
    "stage": (loop, "_next_stage", "before"),
    "save": (Checkpoints, "save", "after"),  # it is being written then
    "saved": (Checkpoints, "_wait", "after"),
    "evaluation": (Scorer, "__call__", "before"),
    "cache": (ActivationCache, "put", "after"),
    "export": (atomic, "put_in_place", "before"),  # of the log, config.json, model/, results.json
    "exported": (atomic, "put_in_place", "after"),
}


def aim(moment: str, count: int) -> None:
    """Puts the end of this process in the way of a function."""
    place, name, when = PLACES[moment]
    original, calls = getattr(place, name), []

    def wrapped(*args, **kwargs):
        calls.append(0)
        last = len(calls) == count
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = original(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(place, name, wrapped)


if __name__ == "__main__":
    aim(sys.argv[1], int(sys.argv[2]))
    main.main(sys.argv[3:])
