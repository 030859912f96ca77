"""The temperature of a run's probabilities, of the outputs of validation at the best step."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtune.data.text.examples import rows_of
from jaxtune.run.setup import Run
from jaxtune.tasks.calibration import Calibration, calibrate


def calibration_of(run: Run, outputs: Any) -> Calibration:
    """Of the outputs of validation at the best step, logits of classes [n c]."""
    labels = rows_of(run.data.examples["validation"].labels, np.arange(len(outputs)))
    if labels.ndim > 1:  # further columns are of classes that the model does not have
        return calibrate(outputs, labels[:, : outputs.shape[1]])
    known = labels < outputs.shape[1]
    return calibrate(outputs[known], labels[known])


def calibration_fields(found: Calibration | None) -> dict[str, Any]:
    """What results.json holds of it; nothing of a task without classes."""
    return {} if found is None else {"calibration": found._asdict()}


def calibration_rows(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How far probabilities are from how often they are right, and what the temperature does."""
    found = results.get("calibration")
    if not found:
        return []
    told = f"ECE {found['ece']:.4f} on validation"
    if found["temperature"] is None:
        return [("probabilities", f"{told}; no temperature: {found['reason']}")]
    after, temperature = found["ece_calibrated"], found["temperature"]
    return [("probabilities", f"{told}, {after:.4f} at temperature {temperature:.3f}")]
