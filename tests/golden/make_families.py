"""Makes `families/`: random small models of transformers on torch, with what they compute.

    pip install torch==2.13.0 transformers==5.24.0 safetensors
    python tests/golden/make_families.py [CASE ...]

For each case `config.json` and `model.safetensors` as `save_pretrained` writes them, and
`reference.safetensors`: the inputs by their names in a batch, `logits` (or `start_logits` and
`end_logits`), `loss`, and `grad/NAME` of every parameter, dropout off. Images are [b c h w], as
torch takes them. A ResNet has `train/logits`, `train/loss`, `train/grad/NAME` and `train/NAME` of
its statistics too, from one pass in training mode.
"""

import json
import sys
from pathlib import Path

import torch
import transformers as t
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion

OUT = Path(__file__).parent / "families"
IGNORED = -100
NAMES = {"id2label": {0: "no", 1: "yes", 2: "maybe"}, "label2id": {"no": 0, "yes": 1, "maybe": 2}}
OFF = {"attn_implementation": "eager"}
ENCODER = {
    "vocab_size": 41,
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 24,
}
ODD = ENCODER | {
    "vocab_size": 37,
    "hidden_size": 15,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "intermediate_size": 23,
}
ROBERTA = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
DISTIL = {
    "vocab_size": 41,
    "dim": 12,
    "n_layers": 3,
    "n_heads": 3,
    "hidden_dim": 20,
    "max_position_embeddings": 24,
}
MODERN = ENCODER | {
    "num_hidden_layers": 4,
    "hidden_size": 24,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
    "global_attn_every_n_layers": 3,
    "local_attention": 6,
}
PUBLISHED = {  # as their config.json spell it, in the words of transformers 4, but smaller
    "position_embedding_type": "sans_pos",
    "architectures": ["ModernBertForMaskedLM"],
    "model_type": "modernbert",
    "classifier_pooling": "mean",
    "classifier_activation": "gelu",
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 160000.0,
    "hidden_activation": "gelu",
    "layer_norm_eps": 1e-05,
    "norm_eps": 1e-05,
    "repad_logits_with_grad": False,
    "sparse_prediction": False,
    "global_attn_every_n_layers": 3,
    "max_position_embeddings": 24,
}
MMBERT = PUBLISHED | {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "local_attention": 4,
    **{"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 1, "eos_token_id": 1},
    **{"sep_token_id": 1, "mask_token_id": 4},
}
ETTIN = PUBLISHED | {
    "vocab_size": 53,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "local_attention": 6,
    **{"pad_token_id": 50, "bos_token_id": 48, "cls_token_id": 48, "eos_token_id": 49},
    **{"sep_token_id": 49},
}
AS_PUBLISHED = {"modernbert-mmbert": MMBERT, "modernbert-ettin": ETTIN}
"""Cases whose config.json is not as this version of transformers writes it."""
DEBERTA = {  # as version 3 has it, with buckets that some distances share
    "relative_attention": True,
    "position_buckets": 6,
    "pos_att_type": "p2c|c2p",
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
GPT2 = {"vocab_size": 41, "n_embd": 12, "n_layer": 3, "n_head": 3, "n_positions": 24}
GPT2 |= {"bos_token_id": 40, "eos_token_id": 40}
VIT = {
    "image_size": 12,
    "patch_size": 4,
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 20,
}
DINOV2 = {
    "image_size": 12,
    "patch_size": 4,
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "mlp_ratio": 2,
}
CONVNEXT = {"patch_size": 2, "hidden_sizes": [8, 12], "depths": [2, 1], "num_stages": 2}
CONVNEXT |= {"layer_scale_init_value": 0.1}
RESNET = {"embedding_size": 6, "hidden_sizes": [8, 12], "depths": [2, 1]}

HEADS = {
    "sequence": "SequenceClassification",
    "token": "TokenClassification",
    "span": "QuestionAnswering",
    "masked_lm": "MaskedLM",
    "causal_lm": "LMHeadModel",
    "image": "ImageClassification",
    "choice": "MultipleChoice",
}

# case: (class prefix, config class, config fields, head)
CASES = {
    f"bert-{head}": ("Bert", t.BertConfig, ENCODER, head)
    for head in ("sequence", "token", "span", "masked_lm")
}
CASES |= {
    f"roberta-{head}": ("Roberta", t.RobertaConfig, ENCODER | ROBERTA, head)
    for head in ("sequence", "token", "span", "masked_lm")
}
CASES |= {
    f"xlm-roberta-{head}": ("XLMRoberta", t.XLMRobertaConfig, ODD | ROBERTA, head)
    for head in ("sequence", "masked_lm")
}
CASES |= {
    f"distilbert-{head}": ("DistilBert", t.DistilBertConfig, DISTIL, head)
    for head in ("sequence", "token", "span", "masked_lm")
}
CASES |= {
    f"modernbert-{head}": ("ModernBert", t.ModernBertConfig, MODERN, head)
    for head in ("sequence", "token", "span", "masked_lm")
}
CASES |= {
    f"gpt2-{head}": ("GPT2", t.GPT2Config, GPT2, head)
    for head in ("sequence", "token", "span", "causal_lm")
}
CASES |= {
    f"electra-{head}": ("Electra", t.ElectraConfig, ENCODER | {"embedding_size": 10}, head)
    for head in ("sequence", "token", "span", "masked_lm")
}
CASES |= {
    f"albert-{head}": ("Albert", t.AlbertConfig, ENCODER | {"embedding_size": 10}, head)
    for head in ("sequence", "token", "span", "masked_lm")
}
CASES |= {
    f"mpnet-{head}": ("MPNet", t.MPNetConfig, ENCODER, head)
    for head in ("sequence", "token", "span", "masked_lm")
}
CASES |= {
    f"deberta-v2-{head}": ("DebertaV2", t.DebertaV2Config, ENCODER | DEBERTA, head)
    for head in ("sequence", "token", "span", "masked_lm")
}
CASES |= {  # two examples of three choices
    f"{name}-choice": (prefix, config_class, fields, "choice")
    for name, prefix, config_class, fields in (
        ("bert", "Bert", t.BertConfig, ENCODER),
        ("roberta", "Roberta", t.RobertaConfig, ODD | ROBERTA),
        ("xlm-roberta", "XLMRoberta", t.XLMRobertaConfig, ENCODER | ROBERTA),
        ("distilbert", "DistilBert", t.DistilBertConfig, DISTIL),
        ("electra", "Electra", t.ElectraConfig, ENCODER | {"embedding_size": 10}),
        ("albert", "Albert", t.AlbertConfig, ENCODER | {"embedding_size": 10}),
        ("mpnet", "MPNet", t.MPNetConfig, ODD),
        ("deberta-v2", "DebertaV2", t.DebertaV2Config, ENCODER | DEBERTA),
        ("modernbert", "ModernBert", t.ModernBertConfig, MODERN),
    )
}
UNTIED = {"tie_word_embeddings": False}
CASES |= {
    "bert-odd": ("Bert", t.BertConfig, ODD | {"hidden_act": "relu"}, "sequence"),
    "distilbert-odd": (
        "DistilBert",
        t.DistilBertConfig,
        DISTIL | {"dim": 15, "n_heads": 5, "hidden_dim": 23, "n_layers": 2},
        "sequence",
    ),
    "modernbert-mean": (
        "ModernBert",
        t.ModernBertConfig,
        MODERN | {"classifier_pooling": "mean", "hidden_size": 30, "vocab_size": 37},
        "sequence",
    ),
    "modernbert-biases": (
        "ModernBert",
        t.ModernBertConfig,
        MODERN
        | {
            "attention_bias": True,
            "mlp_bias": True,
            "norm_bias": True,
            "classifier_bias": True,
            "local_attention": 5,
        },
        "sequence",
    ),
    "modernbert-mmbert": ("ModernBert", t.ModernBertConfig, MMBERT, "sequence"),
    "modernbert-ettin": ("ModernBert", t.ModernBertConfig, ETTIN, "sequence"),
    "gpt2-odd": (
        "GPT2",
        t.GPT2Config,
        GPT2 | {"n_embd": 15, "n_head": 5, "n_inner": 23, "pad_token_id": 0},
        "sequence",
    ),
    "gpt2-untied": ("GPT2", t.GPT2Config, GPT2 | UNTIED, "causal_lm"),
    "electra-odd": ("Electra", t.ElectraConfig, ODD | {"embedding_size": 15}, "sequence"),
    "albert-odd": (
        "Albert",
        t.AlbertConfig,
        ODD | {"embedding_size": 15, "num_hidden_layers": 4, "hidden_act": "relu"},
        "sequence",
    ),
    "mpnet-odd": (
        "MPNet",
        t.MPNetConfig,
        ODD | {"hidden_act": "relu"},
        "sequence",
    ),
    "deberta-v2-odd": (
        "DebertaV2",
        t.DebertaV2Config,
        ODD
        | {
            "relative_attention": True,
            "pos_att_type": ["c2p"],
            "max_relative_positions": 8,
            "type_vocab_size": 3,
            "pooler_hidden_act": "tanh",
        },
        "sequence",
    ),
    "deberta-v2-two": (
        "DebertaV2",
        t.DebertaV2Config,
        ODD | {"relative_attention": True, "pos_att_type": "p2c|c2p", "norm_rel_ebd": "layer_norm"},
        "sequence",
    ),
    "vit-image": ("ViT", t.ViTConfig, VIT, "image"),
    "vit-odd": (
        "ViT",
        t.ViTConfig,
        VIT | {"image_size": 15, "patch_size": 5, "hidden_size": 15, "num_attention_heads": 5},
        "image",
    ),
    "dinov2-image": ("Dinov2", t.Dinov2Config, DINOV2, "image"),
    "dinov2-odd": (  # whose positions are for 4 x 4 patches, and its images have 3 x 5
        "Dinov2",
        t.Dinov2Config,
        DINOV2 | {"image_size": 20, "patch_size": 5, "hidden_size": 15, "num_attention_heads": 5},
        "image",
    ),
    "dinov2-gates": (
        "Dinov2",
        t.Dinov2Config,
        DINOV2 | {"use_swiglu_ffn": True, "mlp_ratio": 3, "use_mask_token": False},
        "image",
    ),
    "dinov2_with_registers-image": (
        "Dinov2WithRegisters",
        t.Dinov2WithRegistersConfig,
        DINOV2 | {"num_register_tokens": 2},
        "image",
    ),
    "dinov2_with_registers-odd": (
        "Dinov2WithRegisters",
        t.Dinov2WithRegistersConfig,
        DINOV2 | {"image_size": 20, "patch_size": 5, "num_register_tokens": 1, "qkv_bias": False},
        "image",
    ),
    "convnext-image": ("ConvNext", t.ConvNextConfig, CONVNEXT, "image"),
    "convnext-odd": (
        "ConvNext",
        t.ConvNextConfig,
        {"patch_size": 3, "hidden_sizes": [7, 9, 11], "depths": [1, 2, 1], "num_stages": 3}
        | {"layer_scale_init_value": 0.0, "hidden_act": "relu"},
        "image",
    ),
    "resnet-image": ("ResNet", t.ResNetConfig, RESNET | {"layer_type": "bottleneck"}, "image"),
    "resnet-basic": (
        "ResNet",
        t.ResNetConfig,
        {"embedding_size": 5, "hidden_sizes": [7, 9, 11], "depths": [1, 2, 1]}
        | {"layer_type": "basic", "downsample_in_first_stage": True},
        "image",
    ),
}

SIDES = {  # height and width of the images, where they are not as config.json has them
    "dinov2-odd": (16, 27),
    "dinov2_with_registers-odd": (13, 31),
    "convnext-image": (19, 19),
    "convnext-odd": (25, 21),
}


def batch_of(case, config, head, generator):
    """Inputs and labels of 3 examples, two of them padded."""
    if head == "image":
        size = getattr(config, "image_size", 19)
        sides = SIDES.get(case, (size, size))
        pixels = torch.randn(3, 3, *sides, generator=generator)
        return {"pixel_values": pixels, "labels": torch.tensor([2, 0, 1])}
    lengths, width = ((11, 11, 11) if head == "span" else (11, 7, 4)), 11  # its loss reads padding
    lengths = (11, 7, 4, 5, 11, 9) if head == "choice" else lengths
    rows = len(lengths)
    ids = torch.randint(5, config.vocab_size - 2, (rows, width), generator=generator)
    mask = torch.tensor([[int(i < n) for i in range(width)] for n in lengths])
    pad = config.pad_token_id if config.pad_token_id is not None else 0
    batch = {"input_ids": torch.where(mask > 0, ids, pad), "attention_mask": mask}
    if getattr(config, "type_vocab_size", 1) > 1:
        batch["token_type_ids"] = (torch.arange(width) >= 3).long() * mask
    if head == "sequence":
        batch["labels"] = torch.tensor([2, 0, 1])
    elif head == "choice":
        batch = {name: value.reshape(2, 3, width) for name, value in batch.items()}
        batch["labels"] = torch.tensor([2, 0])
    elif head == "span":
        batch["start_positions"] = torch.tensor([3, 0, 1])
        batch["end_positions"] = torch.tensor([5, 0, 3])
    else:
        count = 3 if head == "token" else config.vocab_size
        labels = torch.randint(0, count, (rows, width), generator=generator)
        if head == "causal_lm":
            labels = batch["input_ids"]
        else:
            scored = torch.rand(rows, width, generator=generator) < 0.6
            labels = torch.where(scored, labels, IGNORED)
        batch["labels"] = torch.where(mask > 0, labels, IGNORED)
    return batch


def shake(model, generator):
    """Random values everywhere, biases and norms too, so that no term can be missing unseen."""
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point() or "inv_freq" in name:
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(0.5 + noise.abs())
            elif value.ndim == 1:
                value.add_(0.3 * noise)
            else:
                fan_in = value[0].numel() if value.ndim == 4 else value.shape[-1]
                value.copy_(noise * fan_in**-0.5)


def results(model, batch, prefix):
    model.zero_grad()
    out = model(**batch)
    out.loss.backward()
    found = {f"{prefix}loss": out.loss}
    for name in ("logits", "start_logits", "end_logits"):
        if getattr(out, name, None) is not None:
            found[f"{prefix}{name}"] = getattr(out, name)
    grads = {
        name: value.grad
        for name, value in model.named_parameters(remove_duplicate=False)
        if value.grad is not None and name not in model.all_tied_weights_keys
    }
    grads = revert_weight_conversion(model, grads)  # a ViT's modules and files have other names
    found |= {f"{prefix}grad/{name}": value for name, value in grads.items()}
    return {name: value.detach().clone().contiguous() for name, value in found.items()}


def make(case):
    prefix, config_class, fields, head = CASES[case]
    names = NAMES if head in ("sequence", "token", "image") else {}
    own = {
        name: value for name, value in fields.items() if name not in ("model_type", "architectures")
    }
    config = config_class(**own, **names, **OFF)
    generator = torch.Generator().manual_seed(sum(map(ord, case)))
    torch.manual_seed(0)
    model = getattr(t, f"{prefix}{'' if head == 'causal_lm' else 'For'}{HEADS[head]}")(config)
    shake(model, generator)
    model.eval()
    batch = batch_of(case, model.config, head, generator)
    if head == "sequence" and prefix == "GPT2" and config.pad_token_id is None:
        batch = {name: value[:1] for name, value in batch.items()}  # transformers takes one row
    folder = OUT / case
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if case in AS_PUBLISHED:
        labels = {"id2label": {str(i): name for i, name in names["id2label"].items()}}
        labels |= {"label2id": names["label2id"], "architectures": config.architectures}
        text = json.dumps(AS_PUBLISHED[case] | labels, indent=2) + "\n"
        (folder / "config.json").write_text(text)
    found = {k: v.contiguous() for k, v in batch.items()} | results(model, batch, "")
    if prefix == "ResNet":
        model.train()
        found |= results(model, batch, "train/")
        found |= {
            f"train/{name}": value.clone()
            for name, value in model.named_buffers()
            if "running" in name
        }
    save_file(found, folder / "reference.safetensors")
    print(case, float(found["loss"]))


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        make(case)
