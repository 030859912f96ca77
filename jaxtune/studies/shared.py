"""What the trials of a sweep need not compute again: the states that frozen layers give."""

import json
from typing import Any

from jaxtune.frozen.held_out import HeldStates
from jaxtune.frozen.plan import ONE_EPOCH, TrunkPlan
from jaxtune.frozen.store import ActivationCache
from jaxtune.run.hooks import Hook, Moment
from jaxtune.run.setup import Held, Run
from jaxtune.settings import Settings
from jaxtune.settings.dicts import to_dict

_CHANGE_NOTHING = {
    "optimizer": None,
    "loss": None,
    "profile": None,
    "train": (
        *("num_epochs", "num_steps", "eval_batch_size", "log_every_steps", "eval_every_steps"),
        *("checkpoint_every_steps", "best_metric", "patience", "on_nonfinite", "max_seconds"),
    ),
}
"""Settings, of a section or all of it, that the states of frozen layers do not follow from.

What is kept of an example comes from the first batch that has it, so what the batches follow from
is not among them: the seed, the size and shapes of batches.
"""


class Shared:
    """Keeps the states of frozen layers from trial to trial, where the next one's are the same.

    In training they are the bits that each trial would compute by itself; in evaluation the model
    is cut in two, which changes scores by no more than rounding.
    """

    def __init__(self, max_memory_bytes: int) -> None:
        """Nothing is kept yet; of more bytes the states that were kept first are dropped."""
        self._caches: dict[str, ActivationCache] = {}
        self._held: tuple[str, HeldStates] | None = None
        self._most = max_memory_bytes

    def lend(self, run: Run) -> tuple[Run, Hook | None]:
        """The run with what is kept for it, and the hook that keeps what it computes."""
        if len(run.tuning.trunks) != 1:  # a later stage freezes what an earlier one has trained
            return run, None
        plan = _keeping(run.tuning.trunks[0], run.settings)
        if not plan.depth or run.sharding is not None:
            return run, None
        key = _key(run, plan.depth)
        plan = plan._replace(kept=self._caches.get(key), held=self._held_of(run, plan.depth))

        def keep(moment: Moment) -> None:
            cache = moment.stage.loader.cache
            if cache is not None and key not in self._caches:
                self._keep(key, cache)

        lent = run._replace(tuning=run.tuning._replace(trunks=(plan,)))
        return lent, Hook(lambda moment: None, lambda moment: False, before=keep)

    def _held_of(self, run: Run, depth: int) -> HeldStates:
        """Those of the last trial if they are this one's."""
        key = _key(run, depth, evaluation=True)
        if self._held is None or self._held[0] != key:
            self._held = key, HeldStates(run.pretrained.module, depth, self._most)
        return self._held[1]

    def _keep(self, key: str, cache: ActivationCache) -> None:
        self._caches[key] = cache
        while (
            len(self._caches) > 1 and sum(c.num_bytes for c in self._caches.values()) > self._most
        ):
            del self._caches[next(iter(self._caches))]


def without_test(run: Run) -> Run:
    """The run that never looks at the test rows: those are for what is chosen in the end."""
    examples = {split: part for split, part in run.data.examples.items() if split != "test"}
    held = run.data.held if run.data.held.split != "test" else Held("validation")
    return run._replace(data=run.data._replace(examples=examples, held=held))


def _keeping(plan: TrunkPlan, settings: Settings) -> TrunkPlan:
    """A run of one epoch keeps nothing for itself, but for the trials after it."""
    whole = settings.precision.compute_dtype == settings.activation_cache.dtype == "float32"
    if plan.depth and plan.reason == ONE_EPOCH and whole:
        return plan._replace(keeps=True, reason="")
    return plan


def _key(run: Run, depth: int, evaluation: bool = False) -> str:
    """All that the states of training, or of evaluation, follow from."""
    told: dict[str, Any] = to_dict(run.settings)
    for section, names in _CHANGE_NOTHING.items():
        for name in [*told[section]] if names is None else names:
            del told[section][name]
    layout = run.data.eval_layout if evaluation else run.data.stream.layout
    return json.dumps([told, depth, repr(layout)], sort_keys=True)
