"""metrics.jsonl: one JSON object a line, in the order of the steps."""

import json
from pathlib import Path
from typing import Any

from jaxtune.io.atomic import write_atomic


class MetricsLog:
    """Appends lines; a run that goes on from step n first drops what was logged after it."""

    def __init__(self, path: Path | None, *, resume_step: int) -> None:
        """Opens the file and keeps its lines up to `resume_step`, whole ones only.

        Without a path nothing is written.
        """
        self._stream: Any = None
        if path is None:
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off by a kill in the midst of writing
            if row["step"] <= resume_step:
                kept.append(line)
        write_atomic(path, "".join(f"{line}\n" for line in kept))
        self._stream = path.open("a", encoding="utf-8")

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Writes one line at once; NaN becomes null, which JSON has."""
        if self._stream is None:
            return
        row = {"step": step} | {key: finite(value) for key, value in values.items()}
        self._stream.write(json.dumps(row, allow_nan=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()


def finite(value: Any) -> Any:
    """The value, or None for NaN and infinities."""
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
