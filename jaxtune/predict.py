"""`python -m jaxtune.predict --model=DIR --input=FILE --output=FILE`: labels new texts."""

import argparse
import csv
import io
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtune.atomic import write_atomic
from jaxtune.cli import run_command
from jaxtune.errors import UserError, nearest

_OUTPUTS = (".jsonl", ".csv")


def main(argv: list[str]) -> None:
    """Reads texts, predicts, and writes one record for each, in the same order.

    Raises:
      UserError: bad input.
    """
    arguments = _parse(argv)
    output = Path(os.path.expanduser(arguments.output))
    if output.suffix not in _OUTPUTS:
        raise UserError(f"--output={output}: expected a name that ends in .jsonl or .csv.")
    if output.is_dir() or (output.parent.exists() and not output.parent.is_dir()):
        raise UserError(f"--output={output}: expected a file in a folder, which is made if absent.")
    for name, least in (("batch_size", 1), ("max_length", 3)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name}={value}: expected at least {least}.")
    source = Path(os.path.expanduser(arguments.input))
    if not source.is_file():
        siblings = [p.name for p in source.parent.iterdir()] if source.parent.is_dir() else []
        raise UserError(f"--input={source}: there is no such file.{nearest(source.name, siblings)}")
    # The heavy imports wait until the arguments have been found good.
    from jaxtune.data.examples import tokenize
    from jaxtune.export import read_card
    from jaxtune.models.pretrained import find_folder
    from jaxtune.report import Report, human_seconds
    from jaxtune.saved import open_saved, outputs_of

    report = Report()
    card = read_card(find_folder(arguments.model))
    names = arguments.text_columns.split(",") if arguments.text_columns else None
    texts = read_texts(source, names or card.get("text_columns", ()), arguments.encoding)
    saved = open_saved(arguments.model, arguments.compute_dtype, arguments.max_length)
    start = time.perf_counter()
    examples, cut = tokenize(saved.tokenizer, texts, saved.max_length, report.track("tokenizing"))
    if cut:
        report.line(f"{cut} of {len(texts)} texts are longer than {saved.max_length} tokens: cut")
    outputs = outputs_of(saved, examples, arguments.batch_size, report, source.name)
    records = saved.task.decode(outputs, saved.pretrained.class_names)
    write_atomic(output, _format(records, output.suffix))
    seconds = time.perf_counter() - start
    report.line(f"{len(records)} predictions in {human_seconds(seconds)}: {output}")


def read_texts(source: Path, columns: Sequence[str], encoding: str) -> list[tuple[str, ...]]:
    """One or two texts for each row of a file.

    Args:
      source: .txt with one text a line, or a table that `data.files.read_file` reads.
      columns: text columns of a table; () takes `text`, or the only column.
      encoding: of the file.

    Raises:
      UserError: names the file, the line and the column of what is wrong.
    """
    from jaxtune.data import labels
    from jaxtune.data.files import read_file, read_lines
    from jaxtune.data.table import Table

    if source.suffix == ".txt":
        lines = read_lines(str(source), encoding)
        if not lines:
            raise UserError(f"{source} is empty: expected one text a line.")
        table = Table({"text": lines}, str(source), range(1, len(lines) + 1), {})
        return labels.text_rows(table, ("text",))
    table = read_file(str(source), encoding=encoding, required=tuple(columns))
    if not columns:
        names = list(table.columns)
        if "text" not in names and len(names) > 1:
            raise UserError(
                f"{source} has the columns {', '.join(names)}: say with --text_columns=NAME, or"
                " NAME,NAME for pairs, which hold the text."
            )
        columns = ("text",) if "text" in names else (names[0],)
    return labels.text_rows(table, columns)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jaxtune.predict", allow_abbrev=False)
    parser.add_argument("--model", required=True, help="a model or adapter folder, or a hub id")
    parser.add_argument("--input", required=True, help=".txt, .csv, .tsv, .jsonl or .parquet")
    parser.add_argument("--output", required=True, help=".jsonl or .csv")
    parser.add_argument("--text_columns", default="", help="NAME or NAME,NAME")
    parser.add_argument("--encoding", default="utf-8", help="of the input")
    parser.add_argument("--batch_size", type=int, default=64, help="examples a step")
    parser.add_argument("--max_length", type=int, help="tokens; longer texts are cut")
    parser.add_argument("--compute_dtype", choices=("float32", "bfloat16"), default="float32")
    return parser.parse_args(argv)


def _format(records: list[dict[str, Any]], suffix: str) -> str:
    """JSON lines, or csv with the probabilities as one JSON field."""
    if suffix == ".jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow(
            {
                name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
                for name, value in record.items()
            }
        )
    return stream.getvalue()


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
