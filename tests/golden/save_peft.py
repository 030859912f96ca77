"""Saves LoRA, rsLoRA and DoRA of a base model for `check_peft.py`, with jaxtune's logits.

    python tests/golden/save_peft.py BASE DIR

Writes DIR/NAME/ and DIR/NAME.npz. What is trained is drawn from a seed: B, magnitudes, the head,
and the pooler if the base has none. The head has four classes.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from jaxtune.core import paths
from jaxtune.export import peft
from jaxtune.models.pretrained import load_pretrained
from jaxtune.tuning import injection, partition
from jaxtune.tuning.lora import Lora

CASES = {
    "lora": Lora(rank=4, alpha=6.5),
    "rslora": Lora(rank=8, targets=(r"layer/\d+/.*/kernel$",), use_rslora=True),
    "dora": Lora(rank=3, targets=(r"layer/\d+/.*/kernel$",), use_dora=True),
}


def main(base_folder: str, out: Path) -> None:
    """Writes all cases."""
    names = [f"class{i}" for i in range(4)]
    base = load_pretrained(base_folder, class_names=names, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    ids = rng.integers(5, base.config.vocab_size, (6, 17)).astype(np.int32)
    mask = (np.arange(17) < np.array([[17], [3], [9], [17], [12], [5]])).astype(np.int32)
    batch = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    for name, lora in CASES.items():
        extended = lora.extend(base.params, jax.random.key(1))
        labels = partition.label(lora, extended)
        labels = partition.thaw(labels, list(base.report.new), "new")
        flat, marks = paths.flatten(extended), paths.flatten(labels)
        for leaf, value in flat.items():
            noise = 0.1 * rng.standard_normal(value.shape).astype(np.float32)
            if leaf.endswith("_dora_magnitude"):
                flat[leaf] = value * (1 + noise)
            elif marks[leaf] != partition.FROZEN and not leaf.endswith("_lora_a"):
                flat[leaf] = value + noise
        extended = paths.unflatten(flat)
        apply_fn = jax.jit(injection.adapt(lora, base.apply_fn), static_argnames="train")
        logits = np.asarray(apply_fn(extended, batch, key=None, train=False))
        named = peft.Base(str(Path(base_folder).resolve()))
        peft.save_lora(out / name, lora, extended, labels, named)
        np.savez(out / f"{name}.npz", logits=logits, **batch)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
