"""Predictions of many rows, written as they come; a command that was ended goes on where it was.

Until all rows are done the records stand, one JSON object a line, in a partial file beside the
output. Its name has a digest of the model, the input and the flags, so that no two are mixed.
"""

import csv
import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtune import __version__
from jaxtune.data.batching.layout import Layout
from jaxtune.data.sources.rows import Rows, take
from jaxtune.io import lock
from jaxtune.io.atomic import put_in_place, sync
from jaxtune.io.disk import explained
from jaxtune.io.json_files import sha256_of
from jaxtune.run import predictions
from jaxtune.run.beside import Beside, put
from jaxtune.run.console import Report
from jaxtune.run.flat_records import flatten, shape_of
from jaxtune.run.saved import SavedModel
from jaxtune.tasks.records import Record
from jaxtune.tasks.task import Task
from jaxtune.training.prefetch import prefetch

_FORMAT = "2"  # of the records in a partial file

CHUNK = 4096
"""Rows that are in work at once; all that is held grows with it, and not with the input."""

_MOST_OUTPUTS = 1 << 22  # of the rows in work, where each class has one
_FEWEST = 128  # rows in work; more are a multiple of it, so that few batches are ragged
_MANY = 1000  # classes of which somebody may want the likeliest alone

_SAMPLED = 2048  # rows that the shapes of batches are chosen by
_COUNTED = re.compile(r"(\d+) of (\d+) (.*)", re.DOTALL)  # a note with numbers that add up


def digest_of(saved: SavedModel, source: Path, flags: Mapping[str, Any]) -> str:
    """Of all that the records follow from.

    Args:
      saved: the model.
      source: a file, which is read; or a folder, of which names, sizes and times are taken.
      flags: values by name.
    """
    folder = saved.pretrained.folder
    small = [file for file in sorted(folder.glob("*")) if file.suffix in (".json", ".txt")]
    own = [file for file in (*small, folder / "adapter_model.safetensors") if file.is_file()]
    if source.is_dir():
        states = [(str(file), file.stat()) for file in sorted(source.rglob("*"))]
        read: Any = [(name, state.st_size, state.st_mtime_ns) for name, state in states]
    else:
        read = sha256_of([source])
    parts = [__version__, _FORMAT, saved.pretrained.sha256, sha256_of(own), read, dict(flags)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Job(NamedTuple):
    """What becomes of rows.

    Attributes:
      output: .jsonl, or .csv, where numbers that a record nests have columns, and what is truly
        nested is JSON; it appears whole, at the end.
      batch_size: examples a step.
      top_k: classes whose probability is told, the likeliest first; None for all.
      beside: columns of the input, which stand in the output first.
    """

    output: Path
    batch_size: int
    top_k: int | None
    beside: Beside


def predict_file(
    saved: SavedModel, task: Task, rows: Rows, job: Job, report: Report, digest: str
) -> int:
    """Writes a record for each row, in order.

    Args:
      saved: the model.
      task: its task, which may keep tokens.
      rows: to predict on.
      job: where to, and how.
      report: shows progress.
      digest: from `digest_of`.

    Returns:
      How many rows an earlier command had done.

    Raises:
      UserError: as `predictions.outputs_of`; another command writes there; or the disk refuses a
        row, and what stands before it is kept.
    """
    output, chunk = job.output, _chunk_of(saved)
    partial = output.with_name(f".{output.name}.{digest[:16]}.partial")
    with explained(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_symlink():
            output = Path(os.path.realpath(output))
    with lock.held(partial.with_suffix(".lock"), f"--output={output}"):
        for other in output.parent.glob(f".{glob.escape(output.name)}.*.partial"):
            if other != partial:
                other.unlink()  # of another model or input
        done = _whole_chunks(partial, chunk)
        with explained(output), partial.open("ab") as stream:
            own = job.beside.rows(done)
            for records in _records(saved, task, rows, done, job, report):
                for record in records:
                    row = json.dumps(put(next(own), record), ensure_ascii=False)
                    stream.write((row + "\n").encode("utf-8", "replace"))
                stream.flush()
        with explained(output):
            _finish(partial, output)
    return done


def _chunk_of(saved: SavedModel) -> int:
    """Rows in work at once: `CHUNK`, or fewer where there are very many classes."""
    fitting = _MOST_OUTPUTS // max(len(saved.pretrained.class_names), 1)
    return min(CHUNK, max(fitting // _FEWEST, 1) * _FEWEST)


def _records(
    saved: SavedModel, task: Task, rows: Rows, done: int, job: Job, report: Report
) -> Iterator[Iterable[Record]]:
    """The records of the rows from `done` on, a chunk at a time; says what there is to say."""
    count, names = len(rows.inputs), saved.pretrained.class_names
    shape = shape_of(saved, job.top_k) if job.output.suffix == ".csv" else None
    layout_of = _layouts(saved, task, rows, job.batch_size)
    notes: list[str] = []
    if task.output.ranks and job.top_k is None and len(names) > _MANY:
        notes.append(f"each record has {len(names)} probabilities: --top_k writes the likeliest")
    with report.bar("predicting", count, done) as update:
        for part, examples, more in prefetch(_encoded(saved, task, rows, done)):
            notes += more
            outputs = predictions.outputs_in(saved, examples, layout_of(examples))
            records = predictions.records(saved, outputs, examples, part, job.top_k)
            if len(records) != len(part.inputs):
                raise ValueError(f"{task.name} gave {len(records)} records for a chunk of rows")
            yield records if shape is None else (flatten(record, shape) for record in records)
            update(len(records))
    for note in _summed(notes):
        report.line(note)


def _encoded(
    saved: SavedModel, task: Task, rows: Rows, done: int
) -> Iterator[tuple[Rows, Any, list[str]]]:
    """The rows of each chunk, its examples, and notes for a person."""
    chunk = _chunk_of(saved)
    for start in range(done, len(rows.inputs), chunk):
        part = take(rows, np.arange(start, min(start + chunk, len(rows.inputs))))
        yield part, *task.data.encode(part, saved.processor, saved.data, iter)


def _layouts(saved: SavedModel, task: Task, rows: Rows, batch_size: int) -> Callable[[Any], Layout]:
    """The layout of a chunk: one for all that is no longer than a sample of the rows.

    It does not depend on where a command began, so that one that goes on gives the same bits.
    """
    count = len(rows.inputs)
    if count <= _chunk_of(saved):
        return lambda examples: predictions.choose(saved, examples.lengths, batch_size)
    sample = take(rows, np.linspace(0, count - 1, _SAMPLED).astype(np.int64))
    examples, _ = task.data.encode(sample, saved.processor, saved.data, iter)
    lengths = examples.lengths
    limit = max(saved.data.tokens.max_length, int(lengths.max()))
    usual = predictions.choose(saved, lengths, batch_size, count)
    long = predictions.choose(saved, np.append(lengths, limit), batch_size, count)

    def layout_of(examples: Any) -> Layout:
        return usual if examples.lengths.max() <= usual.lengths[-1] else long

    return layout_of


def _whole_chunks(partial: Path, chunk: int) -> int:
    """Cuts a partial file to whole chunks of rows, and says how many rows these have."""
    if not partial.exists():
        return 0
    ends, end = [0], 0
    with partial.open("rb") as stream:
        for line in stream:
            end += len(line)
            if line.endswith(b"\n"):
                ends.append(end)
    done = (len(ends) - 1) // chunk * chunk
    os.truncate(partial, ends[done])
    return done


def _finish(partial: Path, output: Path) -> None:
    """Puts the whole file in the place of the output, as csv where that is asked for."""
    if output.suffix == ".csv":
        table = partial.with_suffix(".csv")
        try:
            _write_csv(partial, table)
            sync(table)
            put_in_place(table, output)
        except BaseException:
            table.unlink(missing_ok=True)
            raise
        partial.unlink()
        return
    sync(partial)
    put_in_place(partial, output)


def _write_csv(partial: Path, table: Path) -> None:
    """A row for each record, with the columns of all of them; what is no plain value as JSON."""
    with partial.open(encoding="utf-8") as lines:
        names = dict.fromkeys(name for line in lines for name in json.loads(line))
    with (
        partial.open(encoding="utf-8") as lines,
        table.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, fieldnames=list(names), lineterminator="\n")
        writer.writeheader()
        for line in lines:
            record = json.loads(line)
            writer.writerow(
                {
                    name: json.dumps(value, ensure_ascii=False)
                    if isinstance(value, dict | list | bool)
                    else value
                    for name, value in record.items()
                }
            )


def _summed(notes: list[str]) -> list[str]:
    """The notes of all chunks, each once; where one counts rows, with the sums of all."""
    sums: dict[str, np.ndarray] = {}
    for note in notes:
        found = _COUNTED.fullmatch(note)
        text, numbers = (found[3], (int(found[1]), int(found[2]))) if found else (note, (0, 0))
        sums[text] = sums.get(text, np.zeros(2, np.int64)) + numbers
    return [f"{n} of {total} {text}" if total else text for text, (n, total) in sums.items()]
