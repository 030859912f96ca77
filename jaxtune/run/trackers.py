"""Where the numbers of a run go while it trains; metrics.jsonl is the first of these places."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from jaxtune.io.atomic import write_atomic


class Tracker(Protocol):
    """Takes the numbers of one run, in the order of its steps."""

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Called once, before the first step.

        Args:
          config: the resolved settings, as config.json holds them.
          step: 0, or the step that the run goes on from; what is known of later ones is void.
        """
        ...

    def log(self, step: int, scores: Mapping[str, Any]) -> None:
        """Called after some steps with numbers by name, such as `train/loss`."""
        ...

    def finish(self) -> None:
        """Called once, however the run ends."""
        ...


class JsonLines:
    """One JSON object a line, written at once; a run that goes on drops what came after."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet.

        Args:
          path: of the file; its folder is made if absent.
        """
        self._path = path
        self._stream: Any = None

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Opens the file and keeps its lines up to `step`, whole ones only."""
        del config
        path, kept = self._path, []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off by a kill in the midst of writing
            if row["step"] <= step:
                kept.append(line)
        write_atomic(path, "".join(f"{line}\n" for line in kept))
        self._stream = path.open("a", encoding="utf-8")

    def log(self, step: int, scores: Mapping[str, Any]) -> None:
        """Writes one line; NaN becomes null, which JSON has."""
        row = {"step": step} | {key: finite(value) for key, value in scores.items()}
        self._stream.write(json.dumps(row, allow_nan=False) + "\n")
        self._stream.flush()

    def finish(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()


def finite(value: Any) -> Any:
    """The value, or None for NaN and infinities."""
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
