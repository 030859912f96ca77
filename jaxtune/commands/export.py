"""`jaxtune export --model=DIR --format=onnx --output=FILE`: a saved model for other programs."""

from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.core.extras import check_extra


def main(argv: list[str], prog: str) -> None:
    """Writes a model as StableHLO or ONNX, and compares what it gives with jaxtune.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: bad input, or a file whose logits are not the model's.
    """
    from jaxtune.run.arguments import export_flags
    from jaxtune.run.typed import output_of, read

    flags = export_flags(prog)
    typed = read(flags, argv)
    if typed is None:
        return
    arguments, _ = typed
    output = output_of(arguments.output)
    _check_output(output)
    if arguments.format != "stablehlo":
        # One writes the file, the other runs it to compare.
        check_extra(f"--format={arguments.format}", "export", "onnx", "onnxruntime")
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
    export_file(open_saved(folder, head=arguments.head), arguments.format, output, report)


def _check_output(output: Path) -> None:
    """Refuses to write over anything."""
    for file in (output, Path(f"{output}.json"), Path(f"{output}.data")):
        if file.exists() or file.is_symlink():
            raise UserError(
                f"--output={output}: {file} is there already. Remove it, or name another file."
            )
