"""`--mode=lr_find`: sweeps the learning rate over a few steps and suggests one."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import optax

from jaxtune.analysis.lr_curve import BETA, MIN_POINTS, Suggestion, fall, smooth, suggest
from jaxtune.core.errors import UserError
from jaxtune.core.extras import is_installed
from jaxtune.io.atomic import write_atomic
from jaxtune.run import stages
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.run.setup import Run
from jaxtune.run.trackers import finite
from jaxtune.run.workdir import explain_unwritable
from jaxtune.settings import Settings
from jaxtune.settings.dicts import to_dict
from jaxtune.training.compiled import main_shape

LOWEST = 1e-7
HIGHEST = {"sgd": 10.0}  # 1 of others, whose steps have a size of their own
NUM_STEPS = 100  # where the config sets no number of steps
GROWTH = 4.0  # the sweep ends where the smoothed loss is so many times its lowest


def lr_find(
    settings: Settings, workdir: Path, report: Report, token_cache_dir: Path | None = None
) -> dict[str, Any]:
    """Trains a copy of the model for some steps, each at a higher rate than the last.

    The rate grows by a constant factor from 1e-7 to 1 (10 for SGD) over `config.train.num_steps`
    steps, or at most 100 where that is not set. Model, strategy, batches, dropout, clipping and
    decay are those of the run; of a strategy in stages it is the first.

    Args:
      settings: validated; `optimizer.learning_rate` and `optimizer.schedule` are not read.
      workdir: gets `lr_find.png` and `lr_find.json`, and is not claimed as a run's.
      report: where a person reads along.
      token_cache_dir: a folder that keeps tokens from run to run; None keeps none.

    Returns:
      What `lr_find.json` holds.

    Raises:
      UserError: bad input, or too few steps.

    Source: Smith 2017, Cyclical Learning Rates for Training Neural Networks, section 3.3.
    """
    with explain_unwritable(workdir):
        workdir.mkdir(parents=True, exist_ok=True)  # found out before the sweep
    run = prepare(settings, report, token_cache_dir)
    count = settings.train.num_steps or min(NUM_STEPS, run.goal.num_steps)
    if count < MIN_POINTS:
        raise UserError(
            f"--mode=lr_find would have {count} steps: expected at least {MIN_POINTS}. Set"
            f" --config.train.num_steps={NUM_STEPS}."
        )
    rates = np.geomspace(LOWEST, HIGHEST.get(settings.optimizer.name, 1.0), count)
    stage = (
        f" (stage 1 of {len(run.tuning.stage_labels)})" if len(run.tuning.stage_labels) > 1 else ""
    )
    report.line(
        f"sweeping the learning rate from {rates[0]:g} to {rates[-1]:g} in {count} steps of"
        f" {settings.train.batch_size} examples, tuning {settings.tuning.name}{stage}"
    )
    losses = _sweep(run, rates, report)
    found = suggest(rates[: len(losses)], losses)
    results = _results(run, rates[: len(losses)], losses, found)
    files = workdir / "lr_find.png", workdir / "lr_find.json"
    plot: Path | str = 'none, as matplotlib is absent: pip install "jaxtune[report]" brings it'
    if is_installed("matplotlib"):
        plot = files[0]
        write_atomic(plot, _plot(results))
    write_atomic(files[1], json.dumps(results, indent=2, allow_nan=False) + "\n")
    report.table("learning rate", _rows(results, found, count, (plot, files[1])))
    return results


def _sweep(run: Run, rates: np.ndarray, report: Report) -> np.ndarray:
    """The loss at each rate, up to the first that is not finite or has grown too much."""
    run = run._replace(goal=run.goal._replace(schedule=_exponential(rates)))
    stage = stages.begin(run, 0, run.params)
    stages.shed(run)
    stream = stage.loader.on_devices()
    losses: list[float] = []
    lowest = np.inf
    with report.bar("sweeping", len(rates)) as update, contextlib.closing(stream):
        for rate in rates:
            _, batch = next(stream)
            if not stage.step.knows(batch):
                update(0, f"compiling for {' x '.join(map(str, main_shape(batch)))}")
            state, info = stage.step(stage.state, stage.frozen, batch)
            stage = stage._replace(state=state)
            losses.append(float(info.loss.value))
            update(1, f"rate {rate:.1e}  loss {losses[-1]:.4f}")
            smoothed = smooth(np.array(losses))[-1]
            lowest = np.fmin(lowest, smoothed)
            # In the first steps the average is over a few batches, and may grow by chance.
            grown = len(losses) > MIN_POINTS // 2 and smoothed > GROWTH * lowest
            if grown or not np.isfinite(losses[-1]):
                break
    return np.array(losses)


def _exponential(rates: np.ndarray) -> optax.Schedule:
    low, factor, last = float(rates[0]), float(rates[-1] / rates[0]), len(rates) - 1
    return lambda step: low * factor ** (step / last)


def _results(run: Run, rates: np.ndarray, losses: np.ndarray, found: Suggestion) -> dict[str, Any]:
    return {
        "suggestion": found.steepest,
        "minimum": found.lowest,
        "minimum_divided_by_10": None if found.lowest is None else found.lowest / 10,
        "reason": found.reason or None,
        "beta": BETA,
        "rates": rates.tolist(),
        "losses": [finite(loss) for loss in losses.tolist()],
        "smoothed": [finite(loss) for loss in smooth(losses).tolist()],
        "curve": [finite(loss) for loss in fall(losses).tolist()],
        "settings": to_dict(run.settings),
    }


def _rows(
    results: dict[str, Any], found: Suggestion, count: int, files: tuple[Path | str, Path]
) -> list[tuple[str, Any]]:
    steps = len(results["rates"])
    if steps == count:
        why = ""
    elif results["losses"][-1] is None:
        why = ", then the loss was not finite"
    else:
        why = f", then the smoothed loss was {GROWTH:g} times its lowest"
    rows = [("steps", f"{steps} of {count}{why}")]
    if found.steepest is None or found.lowest is None:
        rows.append(("suggestion", f"none: {found.reason}. Try larger batches or more steps."))
    else:
        rate = f"{found.steepest:.1e}"
        rows.append(("suggestion", f"--config.optimizer.learning_rate={rate} (steepest descent)"))
        text = f"loss lowest at {found.lowest:.1e}, a tenth of which is {found.lowest / 10:.1e}"
        rows.append(("another rule", text))
    return [*rows, ("plot", files[0]), ("numbers", files[1])]


def _plot(results: dict[str, Any]) -> bytes:
    """The sweep as a PNG: the losses, the curve that the suggestion is of, the suggestion on it."""
    from matplotlib.figure import Figure  # takes a second to import; without pyplot it is Agg

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    rates = np.array(results["rates"])
    losses, smoothed, curve = (np.array(results[k], float) for k in ("losses", "smoothed", "curve"))
    axes.plot(rates, losses, color="0.75", linewidth=1, label="loss of a batch")
    found = results["suggestion"]
    if found is None:
        axes.plot(rates, smoothed, color="C0", label=f"smoothed (beta {results['beta']})")
        rule = f"no suggestion: {results['reason']}"
    else:
        axes.plot(rates, curve, color="C0", label="smoothed both ways, up to the lowest point")
        axes.axvline(found, color="C3", linestyle="--", linewidth=1)
        height = curve[np.argmin(np.abs(rates - found))]
        axes.plot(found, height, "o", color="C3", label=f"suggestion {found:.1e}")
        rule = f"suggestion {found:.1e}: where the smoothed loss falls fastest"
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    title = f"{_title(results['settings'], len(rates))}\n{rule}"
    axes.set_title(title, fontsize="medium", parse_math=False)
    if np.isfinite(smoothed).any():
        # The batches after divergence would squeeze all others into a line at the bottom.
        low, high = np.nanmin(losses), max(smoothed[0], np.nanquantile(smoothed, 0.9))
        margin = 0.1 * abs(high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _title(settings: dict[str, Any], count: int) -> str:
    model, train = Path(settings["model"]["path"]).name, settings["train"]
    steps = f"{count} steps of {train['batch_size']}"
    return f"Learning rate: {settings['tuning']['name']} of {model}, {steps}"
