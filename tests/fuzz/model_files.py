"""Small files of models, tokenizers and adapters, and what reads them."""

import random
from functools import cache
from pathlib import Path
from typing import Any

import mutations
import numpy as np

_WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "cat", "dog", "film", "is", "was"),
    *("good", "bad", "so", "in", "##s", "##ed", "o", "##k"),
)
_BERT = {
    **{"model_type": "bert", "architectures": ["BertForSequenceClassification"]},
    **{"vocab_size": len(_WORDS), "hidden_size": 8, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 40},
    **{"type_vocab_size": 2, "hidden_act": "gelu", "id2label": {"0": "no", "1": "yes", "2": "so"}},
}
_ROBERTA = _BERT | {
    **{"model_type": "roberta", "architectures": ["RobertaForTokenClassification"]},
    **{"pad_token_id": 1, "classifier_dropout": None},
}
_DISTILBERT = {
    **{"model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"], "dim": 8},
    **{"n_heads": 2, "n_layers": 1, "hidden_dim": 8, "vocab_size": 20, "activation": "gelu"},
    **{"max_position_embeddings": 40, "tie_word_embeddings": True},
}
_GPT2 = {
    **{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_head": 2},
    **{"n_layer": 1, "n_inner": None, "n_positions": 40, "vocab_size": 20},
    **{"activation_function": "gelu_new", "tie_word_embeddings": True, "num_labels": 2},
}
_MODERNBERT = {
    **{"model_type": "modernbert", "architectures": ["ModernBertForSequenceClassification"]},
    **{"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 20},
    **{"intermediate_size": 8, "max_position_embeddings": 40, "local_attention": 4},
    **{"layer_types": ["full_attention", "sliding_attention"], "norm_eps": 1e-5},
    "rope_parameters": {
        "full_attention": {"rope_theta": 160000.0, "rope_type": "default"},
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
    },
}
_VIT = {
    **{"model_type": "vit", "architectures": ["ViTForImageClassification"], "image_size": 16},
    **{"patch_size": 8, "num_channels": 3, "hidden_size": 8, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "intermediate_size": 8, "problem_type": None},
}
_RESNET = {
    **{"model_type": "resnet", "architectures": ["ResNetForImageClassification"]},
    **{"depths": [1, 1], "hidden_sizes": [8, 12], "embedding_size": 6, "num_channels": 3},
    **{"layer_type": "basic", "downsample_in_first_stage": False, "hidden_act": "relu"},
}
_DINOV2 = {
    **{"model_type": "dinov2_with_registers", "image_size": 16, "patch_size": 8, "mlp_ratio": 2},
    **{"architectures": ["Dinov2WithRegistersForImageClassification"], "num_channels": 3},
    **{"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "layerscale_value": 1.0},
    **{"num_register_tokens": 1, "use_swiglu_ffn": True, "drop_path_rate": 0.1},
}
_CONVNEXT = {
    **{"model_type": "convnext", "architectures": ["ConvNextForImageClassification"]},
    **{"depths": [1, 1], "hidden_sizes": [8, 12], "num_stages": 2, "patch_size": 2},
    **{"num_channels": 3, "layer_scale_init_value": 1e-6, "drop_path_rate": 0.0},
}
_FAMILIES = (
    *(_BERT, _ROBERTA, _DISTILBERT, _GPT2, _MODERNBERT, _VIT, _RESNET, _DINOV2, _CONVNEXT),
)
_TRACED = 3  # layers of a model that is traced: more take longer, as they should


def configs() -> dict[str, bytes]:
    """Of each family."""
    return {f"{fields['model_type']}/config.json": mutations.dumps(fields) for fields in _FAMILIES}


def read_config(file: Path) -> None:
    """Reads what a model is, to the shapes of its parameters."""
    from jaxtune.models.design import choose_outputs
    from jaxtune.models.registry import saved_head
    from jaxtune.models.source import is_regression, read_source

    source = read_source(file.parent)
    is_regression(source.hf_config)
    head = saved_head(source.family, source.hf_config) or next(iter(source.family.heads))
    outputs = choose_outputs(head, source.hf_config)
    known = vars(source.config)
    layers = [known[name] for name in ("num_hidden_layers", "n_layers", "n_layer") if name in known]
    if max([*layers, sum(known.get("depths", ()))]) <= _TRACED:
        _trace(source.family.model_type, head, source.config, len(outputs.class_names))


@cache
def _trace(model_type: str, head: str, config: Any, num_classes: int) -> None:
    """Makes the shapes of a model, once for all configs that say the same."""
    from jaxtune.models.design import Outputs, make_design
    from jaxtune.models.registry import FAMILIES
    from jaxtune.models.source import Source

    source = Source(Path(), FAMILIES[model_type], config, {})
    make_design(source, head, Outputs(num_classes))


@cache
def _tensors() -> dict[str, np.ndarray]:
    """A model's, by their names in torch; random."""
    from jaxtune.core import paths
    from jaxtune.models import convert
    from jaxtune.models.design import choose_outputs, make_design
    from jaxtune.models.families.bert import BERT
    from jaxtune.models.source import Source

    config = BERT.config_from_hf(_BERT, "")
    source = Source(Path(), BERT, config, _BERT)
    shapes = make_design(source, "sequence", choose_outputs("sequence", _BERT)).shapes
    rng = np.random.default_rng(0)
    return {
        convert.torch_name(leaf): convert.to_file(leaf, rng.normal(size=x.shape).astype(np.float32))
        for leaf, x in paths.flatten(shapes).items()
    }


def safetensors() -> dict[str, bytes]:
    """All tensors in one file."""
    from safetensors.numpy import save

    return {"config.json": mutations.dumps(_BERT), "model.safetensors": save(_tensors())}


def shards() -> dict[str, bytes]:
    """In two files, and an index."""
    from safetensors.numpy import save

    names = [*_tensors()]
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    index = {"metadata": {"total_size": 1}, "weight_map": {}}
    found = {"config.json": mutations.dumps(_BERT)}
    for file, own in parts.items():
        found[file] = save({name: _tensors()[name] for name in own})
        index["weight_map"] |= dict.fromkeys(own, file)
    return found | {"model.safetensors.index.json": mutations.dumps(index)}


def msgpack() -> dict[str, bytes]:
    """As Flax's models were written."""
    from flax.serialization import msgpack_serialize

    tree: dict[str, Any] = {}
    for name, value in _tensors().items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        is_table = "embeddings" in name and "LayerNorm" not in name
        norm = "scale" if "LayerNorm" in name else "embedding" if is_table else "kernel"
        node[last if last == "bias" else norm] = value.T if norm == "kernel" else value
    return {"config.json": mutations.dumps(_BERT), "flax_model.msgpack": msgpack_serialize(tree)}


def mutate_msgpack(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Changes bytes, the tree, or within one array what says its shape and type."""
    import msgpack as packer

    kind = rng.randrange(3)
    if kind == 0:
        return mutations.mutate_bytes(rng, data, others)
    try:
        tree = packer.unpackb(data, strict_map_key=False)
        if kind == 1:
            return packer.packb(mutations.mutate_value(rng, tree))
        node = tree
        while isinstance(node, dict):
            parent, name = node, rng.choice([*node])
            node = node[name]
        array = [*packer.unpackb(node.data)]
        array = mutations.mutate_value(rng, array)
        parent[name] = packer.ExtType(rng.choice((node.code,) * 5 + (2, 3, 9)), packer.packb(array))
        return packer.packb(tree)
    except (OverflowError, UnicodeError, TypeError, ValueError):  # what msgpack cannot hold
        return mutations.mutate_bytes(rng, data, others)


def read_weights(file: Path) -> None:
    """Reads a model, all of its parameters."""
    from jaxtune.models.pretrained import load_weights

    design = _design()
    load_weights(design._replace(source=design.source._replace(path=file.parent)))


@cache
def _design() -> Any:
    from jaxtune.models.design import choose_outputs, make_design
    from jaxtune.models.families.bert import BERT
    from jaxtune.models.source import Source

    source = Source(Path(), BERT, BERT.config_from_hf(_BERT, ""), _BERT)
    return make_design(source, "sequence", choose_outputs("sequence", _BERT))


def tokenizer() -> dict[str, bytes]:
    """With a `tokenizer.json`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    vocab = {word: i for i, word in enumerate(_WORDS)}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made.add_special_tokens([AddedToken(word) for word in _WORDS[:5]])
    made.enable_truncation(16)
    special = {
        f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")
    }
    config = {"tokenizer_class": "BertTokenizer", "model_max_length": 40, "do_lower_case": True}
    config |= {"truncation_side": "right", "split_special_tokens": False}
    return {
        "config.json": mutations.dumps(_BERT),
        "tokenizer.json": made.to_str().encode(),
        "tokenizer_config.json": mutations.dumps(config),
        "special_tokens_map.json": mutations.dumps(special),
    }


def vocabulary() -> dict[str, bytes]:
    """With a `vocab.txt` alone, of which transformers makes a tokenizer."""
    config = {"tokenizer_class": "BertTokenizer", "model_max_length": 40}
    return {
        "config.json": mutations.dumps(_BERT),
        "tokenizer_config.json": mutations.dumps(config),
        "vocab.txt": "\n".join(_WORDS).encode() + b"\n",
    }


def read_tokenizer(file: Path) -> None:
    """Reads a tokenizer, and texts, pairs and words by it."""
    from jaxtune.data.text.tokenizer_files import load_tokenizer
    from jaxtune.data.text.tokens import tokenize

    found = load_tokenizer(file.parent)
    len(found), found.digest, found.all_special_ids
    tokenize(found, [("the cat is bad " * 8,), ("naïve 日本 \x00 [MASK]",)], 12)
    tokenize(found, [("the cat", "a dog so bad " * 8)], 12)
    found.encode([["the", "films"]], words=True)


@cache
def tiny_tokenizer() -> Any:
    """That of `tokenizer`."""
    import tempfile

    from jaxtune.data.text.tokenizer_files import load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, data in tokenizer().items():
            (Path(folder) / name).write_bytes(data)
        return load_tokenizer(Path(folder))


def adapter() -> dict[str, bytes]:
    """LoRA on one matrix, as peft writes it, beside its base."""
    from safetensors.numpy import save

    name = "base_model.model.bert.encoder.layer.0.attention.self.query"
    head = "base_model.model.classifier"
    tensors = {
        **{f"{name}.lora_A.weight": np.ones((2, 8), np.float32)},
        **{f"{name}.lora_B.weight": np.ones((8, 2), np.float32)},
        **{f"{head}.weight": np.ones((3, 8), np.float32), f"{head}.bias": np.ones(3, np.float32)},
    }
    config = {"peft_type": "LORA", "base_model_name_or_path": "base", "r": 2, "lora_alpha": 4}
    config |= {"target_modules": ["query"], "modules_to_save": ["classifier"], "bias": "none"}
    config |= {"lora_dropout": 0.1, "task_type": "SEQ_CLS", "use_dora": False, "revision": None}
    config |= {"fan_in_fan_out": False, "init_lora_weights": True, "rank_pattern": {}}
    config |= {"auto_mapping": None, "layers_to_transform": None, "inference_mode": True}
    base = {f"base/{name}": data for name, data in safetensors().items()}
    return base | {
        "adapter_config.json": mutations.dumps(config),
        "adapter_model.safetensors": save(tensors),
    }


def read_adapter(file: Path) -> None:
    """Reads which head it has, and the adapter on its base; a name of the base is not followed."""
    from jaxtune.export import adapter_folder, peft

    peft.load_lora(file.parent, _base(file.parent / "base").params)
    adapter_folder.find_head_name(file.parent, {"task": "classification"})


def own_adapter() -> dict[str, bytes]:
    """A strategy of jaxtune's own, as a run writes it."""
    from safetensors.numpy import save

    layer = "bert/encoder/layer/0"
    leaves = ("attention/self/query/kernel_ia3_output", "output/dense/kernel_ia3_input")
    tuning = {"name": "ia3", "targets": ["query/kernel$"], "feedforward_targets": [], "rank": None}
    tuning |= {"head": "classifier/", "placement": None, "batch_statistics": "frozen"}
    config = {"peft_type": "JAXTUNE", "base_model_name_or_path": "base", "revision": None}
    config |= {"base_sha256": None, "frozen_dtype": "float32", "tuning": tuning}
    base = {f"base/{name}": data for name, data in safetensors().items()}
    tensors = {f"{layer}/{leaf}": np.ones(8, np.float32) for leaf in leaves}
    return base | {
        "adapter_config.json": mutations.dumps(config),
        "adapter_model.safetensors": save(tensors),
    }


def read_own_adapter(file: Path) -> None:
    """As `read_adapter`."""
    from jaxtune.export import adapter_folder, own_adapter

    config, _, weights = adapter_folder._read(file.parent)
    if config["peft_type"] == adapter_folder.OWN:
        own_adapter.apply_own(file.parent, config, _base(file.parent / "base"), weights)


@cache
def _base(folder: Path) -> Any:
    """A model that is not mutated."""
    from jaxtune.models.pretrained import load_weights

    design = _design()
    return load_weights(design._replace(source=design.source._replace(path=folder)))


def sentence_folder() -> dict[str, bytes]:
    """What sentence-transformers keeps beside a model."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": p} for p, kind in kinds]
    modes = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}
    settings = {"prompts": {"query": "q: "}, "default_prompt_name": None}
    return {
        "modules.json": mutations.dumps(modules),
        "1_Pooling/config.json": mutations.dumps(modes),
        "config_sentence_transformers.json": mutations.dumps(settings),
        "sentence_bert_config.json": mutations.dumps({"max_seq_length": 16}),
    }


def read_sentence_folder(file: Path) -> None:
    """Reads the folder."""
    from jaxtune.models.sentence_files import read_sentence_files

    read_sentence_files(file.parent.parent if file.parent.name == "1_Pooling" else file.parent)


def card() -> dict[str, bytes]:
    """What jaxtune writes beside a model."""
    fields = {"task": "classification", "text_columns": ["text"], "label_column": "label"}
    fields |= {"max_length": 16, "doc_stride": 8, "mask_probability": 0.2, "allow_no_answer": None}
    fields |= {"id2label": {"0": "a", "1": "b"}, "problem_type": "single_label_classification"}
    return {"config.json": mutations.dumps(_BERT), "jaxtune.json": mutations.dumps(fields)}


def read_card(file: Path) -> None:
    """Reads what prediction takes from it."""
    from jaxtune.run import predictions, saved

    _, task, found = saved.saved_task(str(file.parent))
    predictions.own_columns(task, found)
    saved._data_settings(found)
