"""What computes attention, for the table at the start of a run."""

from typing import Any

import flax.linen as nn
import jax

from jaxtune.models.attention_path import choose_path
from jaxtune.run.setup import Run


def attention_rows(run: Run) -> list[tuple[str, str]]:
    """What computes attention in rows of the largest shape, where there is a choice."""
    batch = run.data.stream.empty()  # of the largest shape
    if "input_ids" not in batch:
        return []
    length = batch["input_ids"].shape[1]
    if run.pretrained.design.device.platform == "cpu":
        if choose_path(length, length) == "xla":
            return []
        return [("attention", f"{_kernels(run, True)} in rows of {length:,} tokens")]
    words = [_kernels(run, train) for train in (True, False)]
    rows = [("attention", f"{words[0]} in training, {words[1]} in evaluation")]
    if any("fused" in word for word in words):
        rows.append(
            ("", "the fused kernel has been compiled for GPUs and TPUs, and has run on none")
        )
    return rows


def _kernels(run: Run, train: bool) -> str:
    """Those of all attentions of the model, by tracing it; see `attention.choose_path`."""
    found: set[str] = set()

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "attend":
            query, key, _, bias, _, noise_ids = args
            found.add(context.module.kernel(query, key, bias, noise_ids))
        return call(*args, **kwargs)

    def forward(params: Any, batch: Any) -> Any:
        return run.tuning.apply_fn(params, batch, key=jax.random.key(0), train=train)

    with nn.intercept_methods(note):
        jax.eval_shape(forward, run.params, run.data.stream.empty())
    return " and ".join(sorted(found))
