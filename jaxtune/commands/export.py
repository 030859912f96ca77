"""`jaxtune export --model=DIR --format=onnx --output=FILE`: a saved model for other programs."""

import importlib.util
import os
from pathlib import Path

from jaxtune.core.errors import UserError


def main(argv: list[str], prog: str) -> None:
    """Writes a model as StableHLO or ONNX, and compares what it gives with jaxtune.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: bad input, or a file whose logits are not the model's.
    """
    from jaxtune.run.arguments import answer, export_flags, parse

    flags = export_flags(prog)
    told = answer(flags, argv)
    if told is not None:
        print(told)
        return
    arguments, _ = parse(flags, argv)
    output = Path(os.path.expanduser(arguments.output))
    _check_output(output)
    if arguments.format != "stablehlo":
        _check_packages(arguments.format)
    # The heavy imports wait until the arguments have been found good.
    from jaxtune.export.exportable import check_exportable
    from jaxtune.models.source import find_folder
    from jaxtune.run.console import Report
    from jaxtune.run.export_file import export_file
    from jaxtune.run.saved import open_saved
    from jaxtune.training.program_cache import keep_programs

    report = Report()
    keep_programs(report.line)
    folder = find_folder(arguments.model)
    check_exportable(folder, arguments.format)
    export_file(open_saved(folder), arguments.format, output, report)


def _check_output(output: Path) -> None:
    """Refuses to write over anything."""
    for file in (output, Path(f"{output}.json"), Path(f"{output}.data")):
        if file.exists() or file.is_symlink():
            raise UserError(
                f"--output={output}: {file} is there already. Remove it, or name another file."
            )
    if output.parent.exists() and not output.parent.is_dir():
        raise UserError(f"--output={output}: expected a file in a folder, which is made if absent.")


def _check_packages(kind: str) -> None:
    """Both are used: one writes the file, the other runs it to compare."""
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f'--format={kind} needs {" and ".join(missing)}: pip install "jaxtune[export]"'
        )
