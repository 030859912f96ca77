"""Where the numbers of a run go while it trains; metrics.jsonl is the first of these places."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from jaxtune.core.errors import UserError
from jaxtune.io.atomic import write_atomic
from jaxtune.io.disk import explained


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
        """Called after some steps with numbers by name, such as `train/loss`.

        The last call has the scores of the best step, as `end/validation/accuracy`.
        """
        ...

    def finish(self) -> None:
        """Called once, however the run ends."""
        ...


class JsonLines:
    """One JSON object a line, written at once; a run that goes on drops what came after.

    Each has the `step`, the `event` (`train`, `evaluation`, `resume` or `end`), the `split` of an
    evaluation, and the `time` in UTC, as ISO 8601 has it.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet.

        Args:
          path: of the file; its folder is made if absent.
        """
        self._path = path
        self._stream: Any = None

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Opens the file and keeps its lines up to `step`, whole ones only, without an end.

        A run that goes on gets a line that says so.

        Raises:
          UserError: a line that this class has not written, or a disk that refuses one.
        """
        del config
        kept = [
            line
            for line, row in _lines(self._path)
            if row["step"] <= step and row.get("event") != "end"
        ]
        write_atomic(self._path, "".join(f"{line}\n" for line in kept))
        with explained(self._path):
            self._stream = self._path.open("a", encoding="utf-8")
        if step:
            self._write(step, {"event": "resume"}, {})

    def log(self, step: int, scores: Mapping[str, Any]) -> None:
        """Writes one line; NaN becomes null, which JSON has."""
        self._write(step, event_of(scores), scores)

    def finish(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            with contextlib.suppress(OSError):  # what a full disk refused is still in the buffer
                self._stream.close()

    def _write(self, step: int, event: Mapping[str, str], scores: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        row = {"step": step, **event, "time": now}
        row |= {key: finite(value) for key, value in scores.items()}
        with explained(self._path):
            self._stream.write(json.dumps(row, allow_nan=False) + "\n")
            self._stream.flush()


def event_of(scores: Mapping[str, Any]) -> dict[str, str]:
    """What numbers tell of, by their names: `train/...` and `end/...`, else `SPLIT/...`."""
    first = next((name.partition("/")[0] for name in scores if "/" in name), "train")
    return (
        {"event": first} if first in ("train", "end") else {"event": "evaluation", "split": first}
    )


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a log and what they hold; a last one that a kill cut off is left out."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        row: Any = None
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            if number == len(lines):
                return
        if type(row) is not dict or type(row.get("step")) is not int:
            raise UserError(
                f"{path} line {number}: found {line[:40]!r}, but expected an object of JSON with a"
                " whole number as step. Remove that line, or use another --workdir."
            )
        yield line.decode("utf-8"), row


def finite(value: Any) -> Any:
    """The value, or None for NaN and infinities."""
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
