"""`python -m jaxtune.predict --model=DIR --input=FILE --output=FILE`: labels new data."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtune.run.cli import start_command, token_folder

if TYPE_CHECKING:
    from jaxtune.data.sources.rows import Rows
    from jaxtune.run.beside import Beside
    from jaxtune.run.console import Report

_OUTPUTS = (".jsonl", ".csv")
_FLAGS = (
    "text_columns",
    "columns",
    "encoding",
    "batch_size",
    "max_length",
    "compute_dtype",
    "top_k",
    "head",
)
"""The flags that records follow from."""


def main(argv: list[str], prog: str = "python -m jaxtune.predict") -> None:
    """Reads new data, predicts, and writes one record for each row, in the same order.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: bad input.
    """
    from jaxtune.run.arguments import predict_flags
    from jaxtune.run.typed import read

    flags = predict_flags(prog)
    typed = read(flags, argv)
    if typed is None:
        return
    arguments, _ = typed
    source, output = _checked(arguments)
    # The heavy imports wait until the arguments have been found good.
    from jaxtune.run.beside import keep_columns
    from jaxtune.run.console import Report
    from jaxtune.run.packed import compact
    from jaxtune.run.predictions import own_columns
    from jaxtune.run.saved import saved_task
    from jaxtune.tasks.task import check_top_k, keeping
    from jaxtune.training.program_cache import keep_programs

    report = Report()
    keep_programs(report.line)
    folder, task, card = saved_task(arguments.model)
    kept = token_folder(report.line)
    if arguments.top_k is not None:
        check_top_k(task, arguments.top_k)
    names = own_columns(task, card)
    if arguments.text_columns:
        names = arguments.text_columns.split(",")
    rows = keeping(task, kept).data.read_new(source, names, arguments.encoding)
    with keep_columns(rows, arguments.columns, output) as beside:
        rows = compact(rows._replace(columns=None))
        arguments.model, arguments.input, arguments.output = folder, source, output
        _predict(arguments, rows, beside, kept, report)


def _checked(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Input and output, where all that a command line alone can tell is good."""
    from jaxtune.run.typed import check_least, input_of, output_of

    output = output_of(arguments.output, _OUTPUTS)
    check_least(arguments, batch_size=1, max_length=3, top_k=1)
    return input_of(arguments.input), output


def _predict(
    arguments: argparse.Namespace,
    rows: "Rows",
    beside: "Beside",
    kept: Path | None,
    report: "Report",
) -> None:
    """Opens the model and writes the records of the rows; says how many, and how many are empty."""
    from jaxtune.core.units import human_seconds
    from jaxtune.run.predict_file import Job, digest_of, predict_file
    from jaxtune.run.saved import open_saved
    from jaxtune.tasks.task import keeping

    bad = [*filter(None, rows.reasons or ())]
    if bad:
        told = f"{len(bad)} of {len(rows.inputs)} rows have nothing to predict on"
        report.line(f"{told}: their records are empty, with a reason. First: {bad[0]}")
    length, head = arguments.max_length, arguments.head
    saved = open_saved(arguments.model, arguments.compute_dtype, head=head, max_length=length)
    start = time.perf_counter()
    for note in saved.processor.notes:
        report.line(note)
    digest = digest_of(saved, arguments.input, {name: getattr(arguments, name) for name in _FLAGS})
    job = Job(arguments.output, arguments.batch_size, arguments.top_k, beside)
    done = predict_file(saved, keeping(saved.task, kept), rows, job, report, digest)
    seconds = human_seconds(time.perf_counter() - start)
    before = f", {done} of them by an earlier start" if done else ""
    empty = f", {len(bad)} of them empty" if bad else ""
    report.line(f"{len(rows.inputs)} predictions in {seconds}{before}{empty}: {arguments.output}")


if __name__ == "__main__":
    start_command(main)
