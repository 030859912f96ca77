"""Makes the reference outputs of BERT in `tests/golden/bert/`, with torch and transformers.

The tests read the files and need no torch; this script is run by hand, when the set of
references changes:

    python -m venv env && env/bin/pip install torch transformers numpy
    env/bin/python tests/golden/make_bert.py --minilm PATH/TO/all-MiniLM-L6-v2

All numbers come from seeds, from the CPU, with dropout off and eager attention. Padded
positions attend to the real tokens, so they too have hidden states. Each npz holds `meta`, a
JSON string with the versions that wrote it. Parameter names are torch's
(`bert.encoder.layer.0.attention.self.query.weight`), weights are in torch's layout
([out, in] for a linear layer).

Folders, each in the layout of transformers:

    odd/          3 layers, 36 wide, 3 heads, 3 classes, layer_norm_eps 1e-6
    one_type/     2 layers, 20 wide, 5 heads, one token type, regression, layer_norm_eps 1e-3
                  (large enough to show in the numbers, which odd's is not)
    odd_bare/     odd's encoder and pooler as BertModel saves it (no `bert.` prefix, no
                  classifier), rounded to float16
    odd_sharded/  odd in several float32 shards with an index

`odd/reference.npz` and `one_type/reference.npz`, where BATCH is `padded` (rows padded on
the right) or `full` (no padding), b=6 rows, t=17 tokens, all float32 or int32 unless
said otherwise:

    BATCH/input_ids, BATCH/attention_mask, BATCH/token_type_ids   [b, t]
    BATCH/labels               [b], int32 for odd, float32 for one_type
    BATCH/hidden_states        [layers + 1, b, t, d], first the embeddings
    BATCH/pooler_output        [b, d]
    BATCH/logits               [b, classes]
    loss                       [], mean loss on `padded`: cross entropy, or squared error
    grad/NAME                  gradient of that loss for every parameter
    steps/lr                   [10], learning rate that each step used (float64)
    steps/loss, steps/grad_norm            [10], before the update, before clipping
    steps/loss_f64, steps/grad_norm_f64    [10], the same run in float64
    final/NAME                 each parameter after ten steps
    final_f64/NAME             the same run in float64, then rounded to float32

The ten steps: batches padded, full, padded, ...; gradient clipped to global norm 1.0;
AdamW (0.9, 0.999, eps 1e-8), peak rate 1e-3, weight decay 0.01 on all but biases and
LayerNorm weights; 3 steps of linear warm-up (the first step has rate 0), then linear
decay that would reach 0 at step 10.

The gradient of an attention key's bias is 0 in exact arithmetic (softmax ignores a
constant), so AdamW turns rounding noise into whole steps: `final/*key.bias` says nothing
and differs between float32 and float64. Compare every other parameter.

`minilm.npz` (real weights, a classifier head drawn from a seed), b=8 rows, with the
texts in `minilm_sentences.json` as a list of [first, second or null]:

    input_ids, attention_mask, token_type_ids   [b, t] int32, padded to the longest
    labels                     [b] int32
    classifier.weight, classifier.bias          [3, d], [3]
    hidden/0, hidden/3, hidden/6                [3, t, d], the first 3 rows alone
    mean_pooled                [b, d], mean over real tokens, then divided by its norm
    pooler_output, logits      [b, d], [b, 3]
    loss, grad_norm            [], cross entropy, global norm of its gradient
    grad/NAME                  full gradient of the small parameters in SMALL_GRADS
    grad_norm_names            [n] parameter names
    grad_norms                 [n] float64, the norm of each one's gradient
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    get_linear_schedule_with_warmup,
)

ROOT = Path(__file__).parent / "bert"
ROWS, TOKENS, STEPS, WARMUP, PEAK_LR = 6, 17, 10, 3, 1e-3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = """
    the a is not it and to of good bad great poor film car book food very really this that was
    love hate like day cat dog run ran walk new old ##s ##ed ##ing ##ly ##er . , ! ?
"""
# (tokens of the first text, tokens of the second; 0 for no pair), counted with [CLS] and [SEP]
PADDED_LENGTHS = [(9, 8), (12, 0), (5, 4), (3, 0), (2, 1), (8, 6)]
FULL_LENGTHS = [(9, 8), (17, 0), (5, 12), (14, 3), (10, 7), (17, 0)]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SMALL_GRADS = [
    "bert.embeddings.LayerNorm.weight",
    "bert.encoder.layer.0.attention.self.query.bias",
    "bert.encoder.layer.5.output.LayerNorm.bias",
    "bert.pooler.dense.bias",
    "classifier.weight",
    "classifier.bias",
]
SENTENCES = [
    ("The cat sat on the mat.", None),
    ("Stocks fell sharply after the announcement.", "Markets dropped on the news."),
    ("Never again!", None),
    ("Can I return this jacket?", "Returns are accepted within thirty days of purchase."),
    ("A tokenizer splits unbelievably long words into smaller pieces.", None),
    ("The meeting moved to 3:30 pm on 12 May, in room 4B.", None),
    ("Yes", None),
    ("The waiter was kind, yet the soup was cold and much too salty.", None),
]


def vocabulary() -> list[str]:
    """101 wordpieces: special tokens, letters, letters inside a word, and some words."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = SPECIAL + letters + ["##" + c for c in letters if c not in "jqz"]
    pieces += [w for w in WORDS.split() if w not in pieces]
    pieces += [f"[unused{i}]" for i in range(101 - len(pieces))]
    if len(set(pieces)) != 101:
        raise ValueError(f"expected 101 distinct wordpieces, got {len(set(pieces))}")
    return pieces


def meta() -> np.ndarray:
    """The versions that made a file, as a JSON string."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return np.array(json.dumps({**versions, "numpy": np.__version__}))


def save_tokenizer(folder: Path) -> None:
    """Writes vocab.txt and the tokenizer files; checks that AutoTokenizer reads them."""
    pieces = vocabulary()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(vocab={p: i for i, p in enumerate(pieces)}, do_lower_case=True)
    tokenizer.model_max_length = BertConfig.from_pretrained(folder).max_position_embeddings
    tokenizer.save_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)("The food was good", "not walking!").input_ids
    found = " ".join(pieces[i] for i in ids)
    want = "[CLS] the food was good [SEP] not walk ##ing ! [SEP]"
    if found != want:
        raise ValueError(f"the tokenizer gives {found}, expected {want}")


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Draws every parameter, so that no zero bias or unit scale hides a swapped name."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        std = 0.1 if name.endswith("bias") or "LayerNorm" in name else 0.2
        mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        p.data = mean + std * torch.randn(p.shape, generator=generator)


def make_batch(lengths, vocab: int, token_types: int, labels, seed: int) -> dict:
    """Random wordpieces laid out as [CLS] first [SEP] second [SEP], padded on the right."""
    rng = np.random.default_rng(seed)
    ids, mask, types = np.zeros((3, ROWS, TOKENS), np.int32)
    for row, (first, second) in enumerate(lengths):
        total = first + second
        ids[row, :total] = rng.integers(len(SPECIAL), vocab, total)
        ids[row, 0] = SPECIAL.index("[CLS]")
        ids[row, [first - 1, total - 1]] = SPECIAL.index("[SEP]")
        mask[row, :total] = 1
        types[row, first:total] = min(1, token_types - 1)
    return dict(zip(INPUTS, (ids, mask, types), strict=True)) | {"labels": labels}


def as_torch(batch: dict) -> dict:
    """Integers to int64, floats as they are."""
    tensors = {k: torch.from_numpy(v) for k, v in batch.items()}
    return {k: v if v.is_floating_point() else v.long() for k, v in tensors.items()}


def load(folder: Path) -> BertForSequenceClassification:
    """The saved classifier in float32 with eager attention and without dropout."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    )
    return model.eval()


def forward(model: BertForSequenceClassification, batch: dict) -> dict[str, torch.Tensor]:
    """Hidden states, pooler output, logits and loss, from one pass through the encoder."""
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    out = model.bert(**inputs, output_hidden_states=True)
    whole = model(**batch)
    logits = model.classifier(out.pooler_output)
    torch.testing.assert_close(logits, whole.logits, rtol=0, atol=0)
    return {
        "hidden_states": torch.stack(out.hidden_states),
        "pooler_output": out.pooler_output,
        "logits": logits,
        "loss": whole.loss,
    }


def to_numpy(tensor: torch.Tensor, dtype=np.float32) -> np.ndarray:
    """A detached copy, so that a later step does not change it."""
    return tensor.detach().numpy().astype(dtype, copy=True)


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, np.ndarray]:
    """The gradient of each parameter by name, all of them present."""
    model.zero_grad()
    loss.backward()
    return {f"grad/{k}": to_numpy(p.grad) for k, p in model.named_parameters()}


def adamw(model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW without weight decay on biases and LayerNorm weights."""
    plain = {k for k, _ in model.named_parameters() if k.endswith("bias") or "LayerNorm" in k}
    groups = [
        {"params": [p for k, p in model.named_parameters() if k not in plain]},
        {"params": [p for k, p in model.named_parameters() if k in plain], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)


def ten_steps(folder: Path, batches: list[dict], dtype: torch.dtype) -> dict[str, np.ndarray]:
    """The ten steps that the module's docstring describes, in one precision."""
    model = load(folder).to(dtype)
    optimizer = adamw(model)
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses, norms, rates = [], [], []
    for step in range(STEPS):
        batch = dict(batches[step % 2])
        if batch["labels"].is_floating_point():
            batch["labels"] = batch["labels"].to(dtype)
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        rates.append(schedule.get_last_lr()[0])
        losses.append(loss.item())
        optimizer.step()
        schedule.step()
    tag, precision = ("_f64", np.float64) if dtype == torch.float64 else ("", np.float32)
    result = {f"steps/loss{tag}": np.array(losses, precision)}
    result |= {f"steps/grad_norm{tag}": np.array(norms, precision), "steps/lr": np.array(rates)}
    return result | {f"final{tag}/{k}": to_numpy(p) for k, p in model.named_parameters()}


def make_reference(folder: Path, batches: dict[str, dict]) -> dict[str, np.ndarray]:
    """Every array of a tiny model's reference.npz."""
    model, arrays = load(folder), {"meta": meta()}
    for name, batch in batches.items():
        out = forward(model, as_torch(batch))
        arrays |= {f"{name}/{k}": v for k, v in batch.items()}
        arrays |= {f"{name}/{k}": to_numpy(v) for k, v in out.items() if k != "loss"}
        if name == "padded":
            arrays |= {"loss": to_numpy(out["loss"]), **gradients(model, out["loss"])}
    tensors = [as_torch(batches["padded"]), as_torch(batches["full"])]
    for dtype in (torch.float32, torch.float64):
        arrays |= ten_steps(folder, tensors, dtype)
    return arrays


def make_tiny(name: str, labels: dict[str, np.ndarray], seed: int, scale: float, **config) -> None:
    """One folder: weights, config, tokenizer and reference. `scale` shrinks the head."""
    folder = ROOT / name
    model = BertForSequenceClassification(
        BertConfig(vocab_size=101, initializer_range=0.2, pad_token_id=0, **config)
    )
    randomise(model, seed)
    model.classifier.weight.data *= scale
    model.save_pretrained(folder)
    save_tokenizer(folder)
    lengths = {"padded": PADDED_LENGTHS, "full": FULL_LENGTHS}
    types = model.config.type_vocab_size
    batches = {
        k: make_batch(v, 101, types, labels[k], seed + 1 + i)
        for i, (k, v) in enumerate(lengths.items())
    }
    arrays = make_reference(folder, batches)
    np.savez_compressed(folder / "reference.npz", **arrays)
    report(name, arrays)


def report(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Prints what the ten steps show: clipping, and float32's distance from float64."""
    print(f"{name}: loss {arrays['loss']:.6f}")
    for key in ("lr", "loss", "grad_norm"):
        print(f"  {key:9s}", " ".join(f"{v:.5g}" for v in arrays[f"steps/{key}"]))
    keys = [k.removeprefix("final/") for k in arrays if k.startswith("final/")]
    gap = {k: np.abs(arrays[f"final/{k}"] - arrays[f"final_f64/{k}"]).max() for k in keys}
    rest = {k: v for k, v in gap.items() if not k.endswith("key.bias")}
    worst = max(rest, key=rest.get)
    noise = max(v for k, v in gap.items() if k.endswith("key.bias"))
    loss_gap = np.abs(arrays["steps/loss"] - arrays["steps/loss_f64"]).max()
    print(f"  float32 from float64: losses {loss_gap:.2e}, {worst} {rest[worst]:.2e}")
    print(f"  key biases (noise) {noise:.2e}")


def make_odd() -> None:
    """The odd classifier, and its weights as a bare float16 encoder and in shards."""
    labels = {"padded": [0, 2, 1, 1, 0, 2], "full": [2, 0, 0, 1, 2, 1]}
    names = ["negative", "neutral", "positive"]
    make_tiny(
        "odd",
        {k: np.array(v, np.int32) for k, v in labels.items()},
        seed=11,
        scale=0.5,
        hidden_size=36,
        num_attention_heads=3,
        num_hidden_layers=3,
        intermediate_size=58,
        max_position_embeddings=41,
        type_vocab_size=2,
        layer_norm_eps=1e-6,
        id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)},
    )
    model = load(ROOT / "odd")
    model.save_pretrained(ROOT / "odd_sharded", max_shard_size="60KB")
    bare = BertModel(model.config)
    bare.load_state_dict(model.bert.state_dict())
    bare.half().save_pretrained(ROOT / "odd_bare")


def make_one_type() -> None:
    """The regression model with one token type."""
    labels = {"padded": [0.5, -1.0, 2.0, 0.0, 1.5, -0.3], "full": [0.2, 0.9, -0.4, 0.1, 0.7, 0.3]}
    make_tiny(
        "one_type",
        {k: np.array(v, np.float32) for k, v in labels.items()},
        seed=23,
        scale=0.5,
        hidden_size=20,
        num_attention_heads=5,
        num_hidden_layers=2,
        intermediate_size=31,
        max_position_embeddings=23,
        type_vocab_size=1,
        layer_norm_eps=1e-3,
        num_labels=1,
        problem_type="regression",
    )


def minilm_model(folder: Path) -> BertForSequenceClassification:
    """The real encoder with a classifier head drawn from a seed."""
    rng = np.random.default_rng(7)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=3, attn_implementation="eager", dtype=torch.float32
    )
    head = model.classifier
    head.weight.data = torch.from_numpy(rng.normal(0, 0.1, (3, 384)).astype(np.float32))
    head.bias.data = torch.from_numpy(rng.normal(0, 0.1, 3).astype(np.float32))
    return model.eval()


def make_minilm(folder: Path) -> None:
    """The references of the real MiniLM; its weights stay where they are."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer(a, b, truncation=True, max_length=64) for a, b in SENTENCES]
    encoded = tokenizer.pad(rows, padding="longest", return_tensors="np")
    batch = {k: encoded[k].astype(np.int32) for k in INPUTS}
    batch["labels"] = np.array([0, 1, 2, 2, 0, 1, 1, 0], np.int32)
    model = minilm_model(folder)
    out = forward(model, as_torch(batch))
    grads = gradients(model, out["loss"])
    last, mask = out["hidden_states"][-1], torch.from_numpy(batch["attention_mask"])[..., None]
    mean = (last * mask).sum(1) / mask.sum(1)
    norms = {k: np.linalg.norm(v.astype(np.float64)) for k, v in grads.items()}
    arrays = {"meta": meta(), **batch}
    arrays |= {f"hidden/{i}": to_numpy(out["hidden_states"][i][:3]) for i in (0, 3, 6)}
    arrays |= {k: to_numpy(out[k]) for k in ("pooler_output", "logits", "loss")}
    arrays |= {f"classifier.{k}": to_numpy(p) for k, p in model.classifier.named_parameters()}
    arrays["mean_pooled"] = to_numpy(torch.nn.functional.normalize(mean, dim=-1))
    arrays["grad_norm"] = np.float32(np.linalg.norm(list(norms.values())))
    arrays |= {f"grad/{k}": grads[f"grad/{k}"] for k in SMALL_GRADS}
    arrays["grad_norm_names"] = np.array([k.removeprefix("grad/") for k in norms])
    arrays["grad_norms"] = np.array(list(norms.values()))
    np.savez_compressed(ROOT / "minilm.npz", **arrays)
    text = json.dumps(SENTENCES, indent=1, ensure_ascii=False)
    (ROOT / "minilm_sentences.json").write_text(text + "\n", encoding="utf-8")
    print(f"minilm: loss {out['loss']:.6f}, gradient norm {arrays['grad_norm']:.6f}")


def main() -> None:
    """Makes the whole folder anew."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minilm", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    args = parser.parse_args()
    torch.set_num_threads(2)
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    make_odd()
    make_one_type()
    make_minilm(args.minilm)
    files = sorted(p for p in ROOT.rglob("*") if p.is_file())
    for path in files:
        print(f"{path.stat().st_size:9d}  {path.relative_to(ROOT)}")
    print(f"{sum(p.stat().st_size for p in files):9d}  total")


if __name__ == "__main__":
    main()
