"""Makes the LoRA folders in `tests/golden/peft/`, with torch and peft, on tiny models.

The tests read the files and need no torch; this script is run by hand:

    python -m venv env && env/bin/pip install torch transformers peft numpy
    env/bin/python tests/golden/make_peft.py

Every trained tensor is drawn from a seed, B and DoRA's magnitudes too, so that nothing is 0 or 1
by chance. Folders, as `PeftModel.save_pretrained` writes them, but for the path of the base model,
which the tests put in its place. On the BERT `odd`:

    lora/     r 3, alpha 5, query and value; odd's three classes
    rslora/   r 4, alpha 6, use_rslora; targets by a regex; two classes, and a trained pooler
    dora/     r 2, alpha 3, use_dora; key and both feed-forward matrices, of which one is [36, 58]

`logits.npz` in each: `padded`, `full` [b, classes], float32, for the inputs of
`bert/odd/reference.npz` of the same names, and `meta`, the versions that wrote it.

`families/CASE/`: r 2, alpha 3, on a model of `families/` (make_families.py); its `logits.npz` has
`logits`, [b t 2] of starts and ends, for the inputs of the model's `reference.safetensors`.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

ROOT = Path(__file__).parent
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
FEED_FORWARD = ["key", "intermediate.dense", "1.output.dense"]
CASES = {
    "lora": (3, {"r": 3, "lora_alpha": 5, "target_modules": ["query", "value"]}),
    "rslora": (
        2,
        {
            "r": 4,
            "lora_alpha": 6,
            "use_rslora": True,
            "target_modules": r"bert\.encoder\.layer\.[02]\.attention\.self\.(query|key)",
            "modules_to_save": ["pooler"],
            "lora_dropout": 0.1,
        },
    ),
    "dora": (3, {"r": 2, "lora_alpha": 3, "use_dora": True, "target_modules": FEED_FORWARD}),
}
# case: (class of the model, task type, LoRA's matrices)
FAMILIES = {
    "roberta-sequence": ("SequenceClassification", "SEQ_CLS", ["key"]),
    "roberta-token": ("TokenClassification", "TOKEN_CLS", ["query", "value"]),
    "distilbert-span": ("QuestionAnswering", "QUESTION_ANS", ["q_lin", "lin2"]),
    "modernbert-sequence": ("SequenceClassification", "SEQ_CLS", ["Wqkv", "Wo", "Wi"]),
    "gpt2-odd": ("SequenceClassification", "SEQ_CLS", ["c_attn", "c_proj"]),
    "gpt2-causal_lm": ("CausalLM", "CAUSAL_LM", ["c_attn", "c_fc"]),
}


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Draws what is trained; magnitudes stay near the lengths that they start as."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.requires_grad:
            noise = torch.randn(p.shape, generator=generator)
            p.data = p.data * (1 + 0.2 * noise) if "magnitude" in name else 0.2 * noise


@torch.no_grad()
def make(name: str, classes: int, fields: dict, seed: int) -> None:
    """One folder."""
    base = AutoModelForSequenceClassification.from_pretrained(
        ROOT / "bert" / "odd",
        num_labels=classes,
        ignore_mismatched_sizes=True,
        attn_implementation="eager",
        dtype=torch.float32,
    )
    model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", **fields)).eval()
    randomise(model, seed)
    folder = ROOT / "peft" / name
    save(model, folder)
    reference = np.load(ROOT / "bert" / "odd" / "reference.npz")
    logits = {
        batch: model(
            **{k: torch.from_numpy(reference[f"{batch}/{k}"]).long() for k in INPUTS}
        ).logits.numpy()
        for batch in ("padded", "full")
    }
    save_logits(folder, logits)


@torch.no_grad()
def make_of_family(case: str, head: str, task_type: str, targets: list[str]) -> None:
    """One folder of another family."""
    source = ROOT / "families" / case
    auto = getattr(transformers, f"AutoModelFor{head}")
    base = auto.from_pretrained(source, attn_implementation="eager", dtype=torch.float32)
    config = LoraConfig(task_type=task_type, r=2, lora_alpha=3, target_modules=targets)
    model = get_peft_model(base, config).eval()
    randomise(model, sum(map(ord, case)))
    folder = ROOT / "peft" / "families" / case
    save(model, folder)
    reference = load_file(source / "reference.safetensors")
    outputs = model(**{name: reference[name] for name in INPUTS if name in reference})
    if head == "QuestionAnswering":
        logits = torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
    else:
        logits = outputs.logits
    save_logits(folder, {"logits": logits.numpy()})


def save(model: peft.PeftModel, folder: Path) -> None:
    """As peft does, with a name to put the base's path in place of."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "BASE"
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # peft keeps a set, in the order of the day
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def save_logits(folder: Path, logits: dict[str, np.ndarray]) -> None:
    """With the versions that made them."""
    versions = {module.__name__: module.__version__ for module in (torch, transformers, peft)}
    np.savez_compressed(folder / "logits.npz", meta=np.array(json.dumps(versions)), **logits)
    print(folder.relative_to(ROOT), *(f"{k} {v.shape}" for k, v in logits.items()))


def main() -> None:
    """Makes the whole folder anew."""
    torch.set_num_threads(2)
    shutil.rmtree(ROOT / "peft", ignore_errors=True)
    for seed, (name, (classes, fields)) in enumerate(CASES.items(), start=31):
        make(name, classes, fields, seed)
    for case, (head, task_type, targets) in FAMILIES.items():
        make_of_family(case, head, task_type, targets)
    for path in sorted(p for p in (ROOT / "peft").rglob("*") if p.is_file()):
        print(f"{path.stat().st_size:9d}  {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
