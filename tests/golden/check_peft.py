"""Loads with peft what jaxtune saved, and compares logits.

Run by hand, with torch, transformers and peft; jaxtune itself is not imported:

    python tests/golden/save_peft.py BASE DIR          # with jaxtune: LoRA, rsLoRA and DoRA
    python tests/golden/check_peft.py DIR/lora DIR/lora.npz

The npz holds `logits` [b, classes] and the inputs `input_ids`, `attention_mask` and
`token_type_ids` [b, t]. The base model is the one that the folder names. Fails, with exit code 1,
where a logit is further off than the tolerance, or peft finds a tensor that is missing or left
over.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@torch.no_grad()
def main() -> int:
    """Prints the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("adapter", type=Path, help="folder that jaxtune wrote")
    parser.add_argument("reference", type=Path, help="npz of inputs and jaxtune's logits")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    args = parser.parse_args()
    torch.set_num_threads(2)
    config = json.loads((args.adapter / "adapter_config.json").read_text())
    with safe_open(args.adapter / "adapter_model.safetensors", framework="pt") as file:
        written = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    base = AutoModelForSequenceClassification.from_pretrained(
        config["base_model_name_or_path"],
        num_labels=len(written["base_model.model.classifier.weight"]),
        ignore_mismatched_sizes=True,
        attn_implementation="eager",
        dtype=torch.float32,
    )
    reference = np.load(args.reference)
    inputs = {name: torch.from_numpy(reference[name]).long() for name in INPUTS}
    without = base.eval()(**inputs).logits.numpy()
    model = PeftModel.from_pretrained(base, args.adapter).eval()
    logits = model(**inputs).logits.numpy()
    gap = np.abs(logits - reference["logits"]).max()
    effect = np.abs(logits - without).max()
    print(f"{args.adapter}: largest difference {gap:.3g}; the adapter moves logits by {effect:.3g}")
    again = args.adapter.with_name(args.adapter.name + "_again")
    model.save_pretrained(again)
    with safe_open(again / "adapter_model.safetensors", framework="pt") as file:
        kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    same = kept.keys() == written.keys() and all(
        torch.equal(kept[key], value) for key, value in written.items()
    )
    print(f"saved again by peft: {'the same' if same else 'OTHER'} {len(kept)} tensors")
    return 0 if gap <= args.tolerance and same else 1


if __name__ == "__main__":
    sys.exit(main())
