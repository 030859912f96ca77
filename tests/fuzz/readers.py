"""What is fuzzed: small sound files, how they are mutated, and the code that reads them."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import data_files
import model_files
import mutations
import run_files

Mutate = Callable[[random.Random, bytes, list[bytes]], bytes]


class Reader(NamedTuple):
    """One kind of input.

    Attributes:
      fill: the sound files of a folder, by name.
      mutated: those of them that are mutated, in turn.
      read: reads the folder with the file of this path mutated.
      mutate: the mutation.
    """

    fill: Callable[[], Mapping[str, bytes]]
    mutated: Sequence[str]
    read: Callable[[Path], Any]
    mutate: Mutate = mutations.mutate_bytes


def _data(
    files: Callable[[], Mapping[str, bytes]], task: str, mutate: Mutate = mutations.mutate_bytes
) -> Reader:
    return Reader(files, [*files()], data_files.reads(task), mutate)


READERS: Mapping[str, Reader] = {
    "csv": _data(data_files.csv, "classification"),
    "tsv": _data(data_files.tsv, "classification"),
    "text": _data(data_files.text, "masked_lm"),
    "conll": _data(data_files.conll, "token_classification"),
    "jsonl": _data(data_files.jsonl, "multi_label", mutations.mutate_lines),
    "groups": _data(data_files.groups, "embedding", mutations.mutate_lines),
    "choices": _data(data_files.choices, "multiple_choice", mutations.mutate_lines),
    "queries": _data(data_files.queries, "reranking", mutations.mutate_lines),
    "retrieval": Reader(
        data_files.retrieval,
        [*data_files.retrieval()],
        data_files.read_retrieval,
        data_files.mutate_retrieval,
    ),
    "json": _data(data_files.json, "regression", mutations.mutate_json),
    "parquet": _data(data_files.parquet, "classification", data_files.mutate_parquet),
    "squad": _data(data_files.squad, "question_answering", mutations.mutate_json),
    "images": Reader(
        data_files.images, [*data_files.images()], data_files.read_image, mutations.mutate_image
    ),
    "preprocessor": Reader(
        data_files.preprocessor,
        [*data_files.preprocessor()],
        data_files.read_preprocessor,
        mutations.mutate_json,
    ),
    "config": Reader(
        model_files.configs,
        [*model_files.configs()],
        model_files.read_config,
        mutations.mutate_json,
    ),
    "safetensors": Reader(
        model_files.safetensors,
        ["model.safetensors"],
        model_files.read_weights,
        mutations.mutate_safetensors,
    ),
    "index": Reader(
        model_files.shards,
        ["model.safetensors.index.json"],
        model_files.read_weights,
        mutations.mutate_json,
    ),
    "msgpack": Reader(
        model_files.msgpack,
        ["flax_model.msgpack"],
        model_files.read_weights,
        model_files.mutate_msgpack,
    ),
    "tokenizer": Reader(
        model_files.tokenizer,
        ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"],
        model_files.read_tokenizer,
        mutations.mutate_json,
    ),
    "vocabulary": Reader(model_files.vocabulary, ["vocab.txt"], model_files.read_tokenizer),
    "adapter": Reader(
        model_files.adapter,
        ["adapter_config.json"],
        model_files.read_adapter,
        mutations.mutate_json,
    ),
    "own_adapter": Reader(
        model_files.own_adapter,
        ["adapter_config.json"],
        model_files.read_own_adapter,
        mutations.mutate_json,
    ),
    "sentence_folder": Reader(
        model_files.sentence_folder,
        [*model_files.sentence_folder()],
        model_files.read_sentence_folder,
        mutations.mutate_json,
    ),
    "card": Reader(
        model_files.card, ["jaxtune.json"], model_files.read_card, mutations.mutate_json
    ),
    "checkpoint": Reader(
        run_files.checkpoint, run_files.METADATA, run_files.read_checkpoint, mutations.mutate_json
    ),
    "log": Reader(run_files.log, ["metrics.jsonl"], run_files.read_log, mutations.mutate_lines),
    "run_config": Reader(
        run_files.config, ["config.json"], run_files.read_config, mutations.mutate_json
    ),
    "command": Reader(
        run_files.commands, [*run_files.commands()], run_files.read_command, run_files.mutate_words
    ),
}
