"""The trials of a sweep on disk: what was drawn, what came of it, and what to draw next."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.core.extras import check_extra
from jaxtune.settings import Settings
from jaxtune.studies.space import Space, value_of
from jaxtune.studies.trials import Judge

_RANDOM = 5
"""Trials that are drawn from all of the space alike, before what they gave is looked at; so many
must be complete before one is ended early."""

_FILE = "study.jsonl"


class Trial(NamedTuple):
    """One set of values, tried or being tried.

    Attributes:
      number: from 0.
      words: the values of the settings, as they are typed, by name.
      state: `running`, `complete`, `pruned` or `failed`.
      score: of the best step; of a pruned one, the last; None where it is unknown.
      notes: `steps`, `seconds`, and the `reason` of one that is not complete.
    """

    number: int
    words: Mapping[str, str]
    state: str
    score: float | None
    notes: Mapping[str, Any]


class Ledger:
    """An Optuna study in a file; what a trial draws follows from its number and those before."""

    def __init__(self, folder: Path, settings: Settings, space: Space, maximize: bool) -> None:
        """Opens the study, or makes it; the first trial has the config's own values.

        Args:
          folder: of the sweep.
          settings: that trials begin with; its seed is the sweep's.
          space: what is drawn.
          maximize: whether a higher score is better.

        Raises:
          UserError: Optuna is absent, or its file is damaged.
        """
        optuna = self._optuna = _import_optuna()
        self._space, self._seed = space, settings.seed
        file = folder / _FILE
        fresh = not file.exists()
        _mend(file)
        backend = optuna.storages.journal.JournalFileBackend(str(file))
        try:
            self._study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name="sweep",
                direction="maximize" if maximize else "minimize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=_RANDOM),
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file} is damaged: {str(error)[:200]}. Use another --workdir."
            ) from None
        own = {name: value_of(settings, name) for name in space}
        held = {name: space[name].own(v) for name, v in own.items() if space[name].holds(v)}
        if fresh and held:
            self._study.enqueue_trial(held)

    def next(self) -> tuple[int, dict[str, str]]:
        """The trial that was under way when the sweep stopped, or a new one: number and values."""
        optuna, study = self._optuna, self._study
        running = [t for t in study.trials if t.state == optuna.trial.TrialState.RUNNING]
        number = running[0].number if running else sum(t.state.is_finished() for t in study.trials)
        # A generator for each trial: a sweep that goes on draws what it would have drawn.
        study.sampler = optuna.samplers.TPESampler(
            seed=(self._seed + 1_000_003 * number) % 2**32, n_startup_trials=_RANDOM
        )
        self._trial = optuna.trial.Trial(study, running[0]._trial_id) if running else study.ask()
        self._known = {*running[0].intermediate_values} if running else set()
        words = {name: part.suggest(self._trial, name) for name, part in self._space.items()}
        self._trial.set_user_attr("words", words)
        return self._trial.number, words

    @property
    def judge(self) -> Judge:
        """Of the trial that `next` gave."""
        trial, known = self._trial, self._known

        def report(number: int, score: float) -> None:
            if number not in known:
                trial.report(score, number)

        return Judge(report, trial.should_prune)

    def complete(self, score: float, **notes: Any) -> None:
        """The trial that `next` gave has come to its end."""
        self._end(notes, values=score)

    def prune(self, **notes: Any) -> None:
        """It was ended early."""
        self._end(notes, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, **notes: Any) -> None:
        """It has no score."""
        self._end(notes, state=self._optuna.trial.TrialState.FAIL)

    def _end(self, notes: Mapping[str, Any], **told: Any) -> None:
        for name, value in notes.items():
            self._trial.set_user_attr(name, value)
        self._study.tell(self._trial, **told)

    def trials(self) -> list[Trial]:
        """All trials that were begun, in their order."""
        states = self._optuna.trial.TrialState
        names = {states.COMPLETE: "complete", states.PRUNED: "pruned", states.FAIL: "failed"}
        return [
            Trial(
                t.number,
                t.user_attrs.get("words", {}),
                names.get(t.state, "running"),
                t.value,
                {k: v for k, v in t.user_attrs.items() if k != "words"},
            )
            for t in self._study.trials
            if t.state != states.WAITING
        ]

    def best(self) -> Trial | None:
        """Of those that are complete, the first with the best score."""
        return best_of(self.trials(), self._study.direction.name == "MAXIMIZE")


def best_of(trials: Sequence[Trial], maximize: bool) -> Trial | None:
    """Of those that are complete, the first with the best score; None of none."""
    known = [(t.score, t) for t in trials if t.state == "complete" and t.score is not None]
    if not known:
        return None
    sign = 1.0 if maximize else -1.0
    return max(known, key=lambda pair: (sign * pair[0], -pair[1].number))[1]


def drop_study(folder: Path) -> None:
    """Removes a study of which nothing was tried."""
    (folder / _FILE).unlink(missing_ok=True)


def _import_optuna() -> Any:
    check_extra("a sweep", "sweep", "optuna")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _mend(file: Path) -> None:
    """Drops a last line that a kill cut off, and the lock that it left; the sweep's own is held."""
    file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
    if not file.is_file():
        return
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            json.loads(line)
        except ValueError:
            raise UserError(
                f"{file} line {number} is no JSON. Remove it, or use another --workdir."
            ) from None
    if whole != content:
        file.write_bytes(whole)
