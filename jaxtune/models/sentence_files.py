"""The files of sentence-transformers beside those of transformers: what pools, and the prompts.

`modules.json` lists modules one after the other: a Transformer in the folder itself, a Pooling,
perhaps a Normalize, and of a classifier a Dense, in folders of their own. Releases from 5.4 on
write other paths of the classes and `pooling_mode` in the place of one flag for each mode. All
releases read the older spelling, which is the one that is written here; both are read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.io.json_files import read_json_object
from jaxtune.models.pooling import How, Pooling

MODULES = "modules.json"
_POOLING, _NORMALIZE = "1_Pooling", "2_Normalize"
LINEAR = "linear"
"""What the names of the tensors of a Dense begin with."""

_IDENTITY = "torch.nn.modules.linear.Identity"
_SETTINGS, _TRANSFORMER = "config_sentence_transformers.json", "sentence_bert_config.json"
_OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_HOWS: Mapping[str, How] = {"mean": "mean", "cls": "first", "lasttoken": "last"}
_PATHS = "sentence_transformers.models"  # of the classes, as every release reads them


class SentenceFiles(NamedTuple):
    """What a folder of sentence-transformers says beside the encoder.

    Attributes:
      pooling: of the encoder's states.
      prompts: texts that are put before others, by name, such as `query`.
      max_length: tokens of a text; None where it is not said.
    """

    pooling: Pooling = Pooling()
    prompts: Mapping[str, str] = {}
    max_length: int | None = None

    def known_prompts(self) -> dict[str, str]:
        """Those of queries and of documents, which some call passages, by jaxtune's names."""
        document = self.prompts.get("document") or self.prompts.get("passage") or ""
        return {"query_prompt": self.prompts.get("query", ""), "document_prompt": document}


def is_sentence_folder(folder: Path) -> bool:
    """Whether sentence-transformers has a list of modules there."""
    return (folder / MODULES).is_file()


def dense_folder(pooling: Pooling) -> str:
    """Where the linear layer of a classifier lies that pools so."""
    return "3_Dense" if pooling.normalize else "2_Dense"


def dense_file(pooling: Pooling) -> str:
    """Where its weights are."""
    return f"{dense_folder(pooling)}/model.safetensors"


def read_sentence_files(folder: Path, *, classified: bool = False) -> SentenceFiles | None:
    """What the folder says; None where it has no list of modules.

    Args:
      folder: of the model.
      classified: whether a Dense may come last, which then is not read: it gives classes.

    Raises:
      UserError: a damaged file, or a module, a pooling or a setting that is computed differently.
    """
    if not is_sentence_folder(folder):
        return None
    how, normalize = None, False
    modules = _modules(folder)
    if classified and modules[-1][0] == "Dense":
        modules = modules[:-1]
    for number, (kind, path) in enumerate(modules):
        if number == 0 and kind == "Transformer" and path == "":
            continue
        if kind == "Pooling" and how is None and number == 1:
            how = _how(folder / path / "config.json")
        elif kind == "Normalize" and how is not None and _is_plain(folder / path / "config.json"):
            normalize = True
        else:
            raise UserError(
                f"{folder / MODULES}: module {number} is {kind!r} in {path!r}, which jaxtune does"
                " not have: expected Transformer in the folder itself, Pooling, perhaps Normalize."
            )
    if how is None:
        raise UserError(f"{folder / MODULES}: expected a Pooling after the Transformer.")
    settings, transformer = _object(folder / _SETTINGS), _object(folder / _TRANSFORMER)
    kind = settings.get("model_type") or "SentenceTransformer"
    if kind != "SentenceTransformer":
        raise UserError(
            f"{folder / _SETTINGS}: model_type is {repr(kind)[:80]}, expected"
            " 'SentenceTransformer': a model that gives one vector of each text."
        )
    if transformer.get("do_lower_case"):
        raise UserError(
            f"{folder / _TRANSFORMER}: do_lower_case is true, which is not supported: the tokenizer"
            " alone decides on case."
        )
    return SentenceFiles(Pooling(how, normalize), _prompts(folder, settings), _length(folder))


def sentence_files(
    found: SentenceFiles, width: int, num_outputs: int | None = None
) -> dict[str, Any]:
    """The content of each file, by its place in the folder of the model.

    Args:
      found: what they say.
      width: of an embedding.
      num_outputs: of a linear layer behind it; None for none.
    """
    pooling, places = found.pooling, {"Transformer": "", "Pooling": _POOLING}
    places |= {"Normalize": _NORMALIZE} if pooling.normalize else {}
    dense = {} if num_outputs is None else {"Dense": dense_folder(pooling)}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"{_PATHS}.{name}"}
        for i, (name, path) in enumerate((places | dense).items())
    ]
    layer = {"in_features": width, "out_features": num_outputs, "bias": True}
    modes = {old: _HOWS.get(mode) == pooling.how for old, mode in _OLD_MODES.items()}
    return {
        MODULES: modules,
        f"{_POOLING}/config.json": {"word_embedding_dimension": width, **modes}
        | {"include_prompt": True},
        _SETTINGS: {
            "prompts": dict(found.prompts),
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        _TRANSFORMER: {"max_seq_length": found.max_length, "do_lower_case": False},
        **{
            f"{path}/config.json": layer | {"activation_function": _IDENTITY}
            for path in dense.values()
        },
    }  # none in the folder of Normalize, which has nothing to say


def _modules(folder: Path) -> list[tuple[str, str]]:
    """(class, folder) of each module."""
    file = folder / MODULES
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {str(error)[:200]}.") from None
    good = isinstance(found, list) and all(
        isinstance(module, dict)
        and isinstance(module.get("type"), str)
        and isinstance(module.get("path"), str)
        for module in found
    )
    if not good or not found:
        raise UserError(
            f"{file} is no list of modules: expected objects, each with a type and a path."
        )
    for module in found:
        parts = Path(module["path"]).parts
        if ".." in parts or Path(module["path"]).is_absolute():
            raise UserError(f"{file}: the path {module['path'][:80]!r} leaves the folder.")
    return [(m["type"].rpartition(".")[2][:80], m["path"]) for m in found]


def _is_plain(file: Path) -> bool:
    """Whether a Normalize takes the pooled vector."""
    pooled = (None, "sentence_embedding")
    return all(_object(file).get(f"module_{end}_name") in pooled for end in ("input", "output"))


def _how(file: Path) -> How:
    fields = read_json_object(file)
    mode = fields.get("pooling_mode")
    if mode is None:
        modes = [mode for old, mode in _OLD_MODES.items() if fields.get(old) is True] or ["mean"]
    else:
        modes = mode if isinstance(mode, list) else [mode]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in _HOWS:
        raise UserError(
            f"{file}: the pooling is {repr(modes)[:80]}, which is not supported: expected one of"
            f" {', '.join(_HOWS)}."
        )
    if fields.get("include_prompt", True) is not True:
        raise UserError(
            f"{file}: include_prompt is {repr(fields['include_prompt'])[:80]}, which is not"
            " supported: here the tokens of a prompt are pooled with those of the text."
        )
    return _HOWS[modes[0]]


def _prompts(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    prompts = settings.get("prompts") or {}
    good = isinstance(prompts, dict) and all(isinstance(v, str | None) for v in prompts.values())
    if not good:
        raise UserError(
            f"{folder / _SETTINGS}: prompts is {repr(prompts)[:80]}, expected an object of texts."
        )
    if settings.get("default_prompt_name") is not None:
        raise UserError(
            f"{folder / _SETTINGS}: default_prompt_name is"
            f" {repr(settings['default_prompt_name'])[:80]}, which is not supported: expected null,"
            " and the prompt named where texts are embedded."
        )
    return {name: text for name, text in prompts.items() if text}


def _length(folder: Path) -> int | None:
    length = _object(folder / _TRANSFORMER).get("max_seq_length")
    if length is not None and (type(length) is not int or length < 3):
        raise UserError(
            f"{folder / _TRANSFORMER}: max_seq_length is {repr(length)[:80]}, expected a whole"
            " number from 3, or null."
        )
    return length


def _object(file: Path) -> dict[str, Any]:
    return read_json_object(file) if file.is_file() else {}


CROSS_ENCODER = {"activation_fn": _IDENTITY}
"""What the config.json of a model that scores pairs has under `sentence_transformers`, by which a
CrossEncoder there gives the outputs as they are."""

_OLD_ACTIVATION = "sbert_ce_default_activation_function"


def is_cross_encoder(folder: Path, hf_config: Mapping[str, Any]) -> bool:
    """Whether a model was written for a CrossEncoder of sentence-transformers, of any release.

    Args:
      folder: of the model.
      hf_config: its parsed `config.json`.

    Raises:
      UserError: a damaged file.
    """
    own = hf_config.get("sentence_transformers")
    named = isinstance(own, dict) and "activation_fn" in own
    if named or _OLD_ACTIVATION in hf_config:
        return True
    return _object(folder / _SETTINGS).get("model_type") == "CrossEncoder"
