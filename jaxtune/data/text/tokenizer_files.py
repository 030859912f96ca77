"""From a folder's files to its tokenizer: `tokenizer.json` is the truth, where there is one."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.core.extras import check_extra, is_installed
from jaxtune.data.text.tokenizer import SPECIAL, FileTokenizer, told_of
from jaxtune.io.json_files import read_json_object
from jaxtune.io.model_files import check_folder

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
_EXPECTED = f"Expected {FILE}, or vocab.txt, with {CONFIG}."
_VOCABULARIES = ("vocab.txt", "vocab.json")

_MOST_ID = 2**24
_NO_TOKENS: Mapping[str, str] = MappingProxyType({})
_BERT = {
    **{"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]"},
    **{"cls_token": "[CLS]", "mask_token": "[MASK]"},
}
_ROBERTA = {
    **{"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"},
    **{"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
}
_GPT2 = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
_DEFAULTS = {
    **{"Bert": _BERT, "DistilBert": _BERT, "GPT2": _GPT2},
    **{"Roberta": _ROBERTA, "XLMRoberta": _ROBERTA},
    **{"bert": _BERT, "distilbert": _BERT, "modernbert": _BERT, "gpt2": _GPT2},
    **{"roberta": _ROBERTA, "xlm-roberta": _ROBERTA},
}
"""Special tokens that no file names, by transformers' class and by the model's type."""

_SAMPLE = "The naïve EU, in 2019: Über-Straße!  it's 日本, and I'll go."
"""What a wrong setting of case, accents, spaces or scripts shows in."""


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a vocabulary."""
    found = (folder / FILE, *(folder / name for name in _VOCABULARIES), *folder.glob("*.model"))
    return any(file.exists() for file in found)


def check_tokenizer(folder: Path) -> None:
    """Refuses a folder without a vocabulary, or with one that an absent package would read.

    It opens no file, so that nobody waits for a model whose tokenizer there is none for.

    Raises:
      UserError: names what is missing, or the package and the extra that brings it.
    """
    if (folder / FILE).exists():
        return
    if not has_tokenizer(folder):  # of special tokens alone transformers makes a tokenizer too
        raise UserError(f"{folder} has no tokenizer. {_EXPECTED}")
    models = sorted(file.name for file in folder.glob("*.model"))
    others = [*models, *(name for name in ("vocab.txt", "merges.txt") if (folder / name).exists())]
    if not others:
        raise UserError(f"{folder} has no tokenizer: vocab.json, but no merges.txt. {_EXPECTED}")
    check_extra(f"{folder} has no {FILE}: its {others[-1]}", "transformers", "transformers")
    readable = all(map(is_installed, ("sentencepiece", "google.protobuf")))
    if models and not readable and "vocab.txt" not in others:
        raise UserError(
            f"{folder} has no tokenizer but {models[0]}, which needs packages that are not"
            f" installed: pip install sentencepiece protobuf. {_EXPECTED}"
        )


def load_tokenizer(folder: Path) -> FileTokenizer:
    """The tokenizer of a folder: that of `tokenizer.json`, else as transformers makes it.

    Raises:
      UserError: no tokenizer files, damaged ones, ones that name code or need an absent package,
        or no padding token.
    """
    folder = Path(folder)
    if folder.is_dir():
        check_folder(folder)
    config, model = (_object(folder / name) for name in (CONFIG, "config.json"))
    if not (folder / FILE).exists():
        return _from_slow_files(folder, config)
    from tokenizers import Tokenizer

    with told_of(f"{folder} has no tokenizer that can be read: {FILE}"):
        backend = Tokenizer.from_file(str(folder / FILE))
        known = backend.get_vocab(with_added_tokens=True)
        _check_sizes(backend, known, folder / FILE)
        config = _checked(config, folder / CONFIG)
        named = config | _special_map(folder, config)
        special = _name_tokens(backend, known, named, model)
        config = {k: v for k, v in config.items() if k not in SPECIAL} | special
        config.setdefault("model_input_names", _input_names(config, model))
        tokenizer = FileTokenizer(backend, config, str(folder / FILE))
        for sample in (_SAMPLE, (_SAMPLE, _SAMPLE)):
            tokenizer.encode([sample])
    tokenizer.notes = (*tokenizer.notes, *_disagreements(tokenizer, folder, config))
    return tokenizer


def of_transformers(found: Any, place: str = "the tokenizer") -> FileTokenizer:
    """A tokenizer of transformers as one of ours.

    Raises:
      UserError: it is computed in Python, or has no padding token.
    """
    if not found.is_fast:
        raise UserError(
            f"{place}: {type(found).__name__} is computed in Python, but expected a tokenizer that"
            f" the tokenizers library can compute. Save one with a {FILE}."
        )
    special = {name: getattr(found, name) for name in SPECIAL}
    config = {name: str(token) for name, token in special.items() if token is not None}
    config |= {"model_max_length": found.model_max_length, "truncation_side": found.truncation_side}
    config |= {"split_special_tokens": found.split_special_tokens}
    config |= {"model_input_names": list(found.model_input_names)}
    return FileTokenizer(found.backend_tokenizer, config, place)


def _check_sizes(backend: Any, known: Mapping[str, int], file: Path) -> None:
    """Refuses what a small file makes the `tokenizers` library take endless memory by.

    It keeps a place for every id up to the largest, and cuts each text of a template into pieces
    of which all combinations are made.
    """
    largest = max(known.values(), default=0)
    if largest > _MOST_ID:
        raise UserError(f"{file}: a token has the id {largest}, expected at most {_MOST_ID}.")
    processor = json.loads(backend.post_processor.__getstate__()) if backend.post_processor else {}
    for part in processor.get("processors", [processor]):
        for name in ("single", "pair"):
            pieces = part.get(name, ()) if part.get("type") == "TemplateProcessing" else ()
            texts = [piece["Sequence"]["id"] for piece in pieces if "Sequence" in piece]
            if len(texts) != len({*texts}):
                raise UserError(
                    f"{file}: the template {name} of post_processor has a text {len(texts)} times,"
                    " expected $A and $B once each."
                )


def _from_slow_files(folder: Path, config: dict[str, Any]) -> FileTokenizer:
    """What transformers makes of `vocab.txt`, of `vocab.json`, or of a sentencepiece model."""
    _checked(config, folder / CONFIG)
    check_tokenizer(folder)
    # Without torch, transformers says at import that it has no models; nobody needs to act on it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # whatever damaged files lead to
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{folder} has no tokenizer that transformers can load: {lines[0][:200]} {_EXPECTED}"
        ) from None
    tokenizer = of_transformers(found, str(folder))
    for sample in (_SAMPLE, (_SAMPLE, _SAMPLE)):
        tokenizer.encode([sample])
    return tokenizer


def _object(file: Path) -> dict[str, Any]:
    return read_json_object(file) if file.exists() else {}


def _checked(config: dict[str, Any], file: Path) -> dict[str, Any]:
    """The fields of a `tokenizer_config.json`, refused where one is of another type."""
    limit = config.get("model_max_length", config.get("max_len"))
    checks = {
        "model_max_length": (limit, _is_number(limit), "a number of tokens"),
        "truncation_side": (
            side := config.get("truncation_side"),
            side in (None, "left", "right"),
            "left or right",
        ),
        "tokenizer_class": (
            name := config.get("tokenizer_class"),
            name is None or isinstance(name, str),
            "a name",
        ),
    }
    for field, (value, good, expected) in checks.items():
        if not good:
            raise UserError(f"{file}: {field} is {str(value)[:80]!r}, expected {expected}.")
    return config if limit is None else config | {"model_max_length": limit}


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (is_number and 1 <= value < float("inf"))


def _special_map(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What `special_tokens_map.json` says, which files of older versions go by."""
    if "added_tokens_decoder" in config:
        return {}
    return _object(folder / "special_tokens_map.json")


def _name_tokens(
    backend: Any, known: Mapping[str, int], named: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, str]:
    """Special tokens by name; those that the files name become special in the backend too.

    Args:
      backend: the `tokenizers.Tokenizer`.
      known: the id of each of its tokens.
      named: the fields of the tokenizer's config.
      model: the model's config.json.
    """
    from tokenizers import AddedToken

    class_name = str(named.get("tokenizer_class")).removesuffix("Fast").removesuffix("Tokenizer")
    defaults = _DEFAULTS.get(class_name) or _DEFAULTS.get(str(model.get("model_type")), _NO_TOKENS)
    found: dict[str, Any] = {k: token for k, token in defaults.items() if token in known}
    found |= {name: named[name] for name in SPECIAL if named.get(name) is not None}
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    new = [token for token in (*found.values(), *_extra(named)) if _text(token) not in added]
    flags = ("lstrip", "rstrip", "single_word", "normalized")
    for token in new:
        fields = token if isinstance(token, dict) else {}
        chosen = {name: fields.get(name) is True for name in flags}
        backend.add_special_tokens([AddedToken(_text(token), special=True, **chosen)])
    special = {name: _text(token) for name, token in found.items()}
    for name in SPECIAL:  # those that only config.json knows
        token_id = model.get(f"{name}_id")
        if name not in special and type(token_id) is int and 0 <= token_id < len(known):
            special[name] = backend.id_to_token(token_id)
    return special


def _extra(named: Mapping[str, Any]) -> Iterator[Any]:
    for field in ("additional_special_tokens", "extra_special_tokens"):
        tokens = named.get(field) or ()
        yield from tokens.values() if isinstance(tokens, dict) else tokens


def _text(token: Any) -> str:
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str) or not text:
        raise ValueError(f"the special token {str(token)[:80]!r} is no text")
    return text


def _input_names(config: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """What transformers gives to a model of this kind."""
    kind = model.get("model_type", config.get("tokenizer_class"))
    has_types = kind in ("bert", "BertTokenizer", "BertTokenizerFast")
    return ["input_ids", *(["token_type_ids"] if has_types else []), "attention_mask"]


def _disagreements(
    tokenizer: FileTokenizer, folder: Path, config: Mapping[str, Any]
) -> Iterator[str]:
    """A note where the files of a slow tokenizer, which lie there too, give other tokens."""
    name = next((name for name in _VOCABULARIES if (folder / name).exists()), None)
    if name is None:
        return
    (ours,) = tokenizer.encode([_SAMPLE], special=False)
    try:
        theirs = _slow_backend(folder, name, config).encode(_SAMPLE, add_special_tokens=False)
        if ours.ids == theirs.ids:
            return
        pairs = zip([*ours.tokens, ""], [*theirs.tokens, ""], strict=False)
        shown = next((f", such as {a!r} for {b!r}" for a, b in pairs if a != b), "")
    except Exception as error:  # whatever damaged files lead to
        shown = f": {str(error).splitlines()[0][:80]}"
    yield (
        f"{folder}: {FILE} is taken, though {name} with {CONFIG} gives other tokens{shown};"
        " transformers may read either"
    )


def _slow_backend(folder: Path, name: str, config: Mapping[str, Any]) -> Any:
    """The tokenizer of BERT's or GPT-2's vocabulary, with the settings that transformers takes."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    file = str(folder / name)
    if name == "vocab.txt":
        unknown = config.get("unk_token") or "[UNK]"
        backend = Tokenizer(models.WordPiece.from_file(file, unk_token=unknown))
        backend.normalizer = normalizers.BertNormalizer(
            handle_chinese_chars=config.get("tokenize_chinese_chars") is not False,
            strip_accents=config.get("strip_accents"),
            lowercase=config.get("do_lower_case") is not False,
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return backend
    backend = Tokenizer(models.BPE.from_file(file, str(folder / "merges.txt")))
    space = config.get("add_prefix_space") is True
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    return backend
