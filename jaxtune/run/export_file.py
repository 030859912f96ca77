"""Writing a saved model in a format of others, checked before it appears."""

import importlib.metadata
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from jaxtune import __version__
from jaxtune.core.errors import UserError
from jaxtune.core.units import human_bytes
from jaxtune.export.signature import Signature, signature_of
from jaxtune.io.atomic import put_in_place, sync
from jaxtune.io.disk import explained
from jaxtune.run import export_check
from jaxtune.run.console import Report
from jaxtune.run.export_check import Call, Check
from jaxtune.run.export_sample import Sample, sample_of
from jaxtune.run.saved import SavedModel

BOUND = 1e-5
"""The most that a logit of a float32 file may differ, in the scale of the largest one."""

LEAST_AGREEMENT = 0.99
"""Of the decisions of an int8 file; fewer are told."""


def export_file(saved: SavedModel, kind: str, output: Path, report: Report) -> None:
    """Writes the file, and beside it FILE.json with its inputs and outputs and how it was checked.

    Args:
      saved: the model.
      kind: `stablehlo`, `onnx` or `onnx-int8`.
      output: nothing may be there.
      report: where a person reads along.

    Raises:
      UserError: its logits are not the model's; there is no file then.
    """
    signature = signature_of(saved.pretrained.design)
    with explained(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
        try:
            files = _write(saved, kind, fresh / output.name, signature)
            sample = sample_of(saved, signature)
            check = _check(saved, kind, files[0], signature, sample)
            _tell(kind, output, files, check, sample, report)
            about = Path(f"{files[0]}.json")
            text = json.dumps(_about(saved, kind, signature, check, sample), indent=2)
            about.write_text(text + "\n", encoding="utf-8")
            for file in (*files[1:], about, files[0]):
                sync(file)
                put_in_place(file, output.parent / file.name)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _write(saved: SavedModel, kind: str, file: Path, signature: Signature) -> list[Path]:
    pretrained = saved.pretrained
    if kind == "stablehlo":
        from jaxtune.export.stablehlo import write_stablehlo

        write_stablehlo(file, pretrained.apply_fn, pretrained.params, signature)
        return [file]
    from jaxtune.export.onnx_file import PRECISIONS, write_onnx

    return write_onnx(file, pretrained.design, pretrained.params, PRECISIONS[kind])


def _check(saved: SavedModel, kind: str, file: Path, signature: Signature, sample: Sample) -> Check:
    """Compares the file with the model; refuses float32 logits that are others."""
    pretrained = saved.pretrained
    own = export_check.own_call(pretrained.apply_fn, pretrained.params, signature)
    open_file = export_check.stablehlo_call if kind == "stablehlo" else export_check.onnx_call
    other: Call = open_file(file)
    check = export_check.compare(own, other, saved.task, sample)
    if kind != "onnx-int8" and check.relative > BOUND:
        raise UserError(
            f"{file.name}: a logit differs by {check.difference:.2g} from jaxtune's, where the"
            f" largest is {check.scale:.3g}, but expected at most {BOUND:g} of that, on"
            f" {sample.origin}. Nothing is written: please report it."
        )
    return check


def _tell(
    kind: str, output: Path, files: list[Path], check: Check, sample: Sample, report: Report
) -> None:
    size = human_bytes(sum(file.stat().st_size for file in files))
    beside = f", most of it in {files[1].name}" if len(files) > 1 else ""
    report.line(f"{output}: {kind}, {size}{beside}")
    same = "" if check.agreement is None else f"; {check.agreement:.2%} of the answers are the same"
    report.line(
        f"compared on {sample.origin}: logits differ by at most {check.difference:.2g}, where the"
        f" largest is {check.scale:.3g}{same}"
    )
    ours, others = check.rates
    report.line(
        f"examples/s in padded batches on this machine: jaxtune {ours:.1f}, file {others:.1f}"
    )
    if sample.is_real and check.agreement is not None and check.agreement < LEAST_AGREEMENT:
        report.line(
            f"warning: only {check.agreement:.2%} of the answers are the model's own, expected"
            f" {LEAST_AGREEMENT:.0%}: score the file on your data before you use it"
        )


def _about(
    saved: SavedModel, kind: str, signature: Signature, check: Check, sample: Sample
) -> dict[str, Any]:
    """The content of FILE.json."""
    ours, others = check.rates
    tools = ("jax",) if kind == "stablehlo" else ("jax", "onnx", "onnxruntime")
    return {
        "format": kind,
        "inputs": signature.inputs,
        "outputs": signature.outputs,
        "class_names": saved.pretrained.class_names,
        "compared_on": sample.origin,
        "largest_difference": check.difference,
        "largest_logit": check.scale,
        "agreement": check.agreement,
        "examples_per_second": {"jaxtune": round(ours, 1), "file": round(others, 1)},
        "weights_sha256": saved.pretrained.sha256,
        "versions": {"jaxtune": __version__}
        | {name: importlib.metadata.version(name) for name in tools},
    }
