"""Small files of data, and tasks that read them."""

import io
import json as json_text
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import mutations
import numpy as np

TEXTS = (
    *("a good film", "so bad, and long", "it was ok", 'the "old" car', "naïve 日本 text", "1 2 3"),
    *(
        "what a dog",
        "who sat here?",
        "no",
        "a cat ran in the house",
        "film; film | film",
        "the end",
    ),
)
LABELS = ("good", "bad", "so")
WORDS = (("John", "B-PER"), ("lives", "O"), ("in", "O"), ("New", "B-LOC"), ("York", "I-LOC"))


def reads(task: str) -> Callable[[Path], None]:
    """A function that reads a file as the training data of a task, and as new data.

    Where rows are bad, it is read once more without them. What was read is tokenized.
    """

    def read(file: Path) -> None:
        from jaxtune.core.errors import UserError
        from jaxtune.data.sources.rows import read_data
        from jaxtune.tasks.registry import TASKS

        data = TASKS[task].data
        stopped = None
        for on_bad_row in ("stop", "skip"):
            settings = _settings(task, str(file), on_bad_row)
            try:
                found = read_data(settings, data.reader)
                data.encode(found.splits["train"], _tokenizer(), settings, iter)
                break
            except UserError as error:
                stopped = error
        if "splits" not in file.name:  # of which a file to predict on has none
            names = SINGLE.get(file.name, settings.columns.text_columns)
            data.read_new(file, names, "utf-8")
        if stopped:
            raise stopped

    return read


@cache
def _settings(task: str, path: str, on_bad_row: str) -> Any:
    from jaxtune.settings.data import DataSettings
    from jaxtune.settings.dicts import from_dict

    fields = COLUMNS.get(task, {}) | {"path": path, "on_bad_row": on_bad_row}
    return from_dict(DataSettings, {"validation_size": 4} | fields)


COLUMNS = {
    "token_classification": {"text_columns": ("tokens",), "label_column": "tags"},
    "question_answering": {
        "text_columns": ("question", "context"),
        "label_column": "answers",
        "max_length": 32,
        "doc_stride": 8,
    },
}


SINGLE = {
    **{"anchors.jsonl": ("anchor",), "pairs.jsonl": ("sentence1",)},
    "queries.jsonl": ("query", "positive"),
}
"""Of groups of texts, the columns that are read of new rows."""


def csv() -> dict[str, bytes]:
    """With commas and quotes, and with semicolons."""
    rows = [(text.replace('"', '""'), LABELS[i % 3]) for i, text in enumerate(TEXTS)]
    commas = "text,label,n\n" + "".join(f'"{text}",{label},1\n' for text, label in rows)
    others = "id;text;label\r\n" + "".join(f'7;"{text}";{label}\r\n' for text, label in rows)
    return {"commas.csv": commas.encode(), "semicolons.csv": others.encode()}


def tsv() -> dict[str, bytes]:
    """With a header, and with one that names other columns too."""
    rows = [(text, LABELS[i % 3]) for i, text in enumerate(TEXTS)]
    plain = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    wide = "id\tlabel\ttext\tx\n" + "".join(f"1\t{label}\t{text}\t\n" for text, label in rows)
    return {"plain.tsv": plain.encode(), "wide.tsv": wide.encode()}


def text() -> dict[str, bytes]:
    """A text a line."""
    return {"train.txt": "\n".join(TEXTS * 2).encode(), "wiki.tokens": "\n\n".join(TEXTS).encode()}


def conll() -> dict[str, bytes]:
    """Two, four and ten columns."""
    sentences = [[(f"{word}{i}", tag) for word, tag in WORDS] for i in range(8)]
    two, four, ten = [], ["-DOCSTART- -X- -X- O\n\n"], []
    for words in sentences:
        two += [*(f"{word} {tag}\n" for word, tag in words), "\n"]
        four += [*(f"{word} NN I-NP {tag}\n" for word, tag in words), "\n"]
        ten += ["# text = x\n", *_ten_columns(words), "\n"]
    files = {"two.conll": two, "four.txt": four, "ten.conllu": ten}
    return {name: "".join(lines).encode() for name, lines in files.items()}


def _ten_columns(words: list[tuple[str, str]]) -> list[str]:
    return [f"{i}\t{w}\t_\t{t[0]}\t_\t_\t0\t_\t_\t{t}\n" for i, (w, t) in enumerate(words, 1)]


def jsonl() -> dict[str, bytes]:
    """Lists of classes, and their flags."""
    names = [{"text": text, "label": [*LABELS[: i % 4]]} for i, text in enumerate(TEXTS)]
    flags = [{"text": text, "label": [i % 2, 1, 0]} for i, text in enumerate(TEXTS)]
    return {f"{name}.jsonl": _lines(rows) for name, rows in (("names", names), ("flags", flags))}


def groups() -> dict[str, bytes]:
    """Anchors with lists of negatives, and pairs with a score."""
    anchors = [
        {"anchor": text, "positive": text[::-1], "negatives": [*TEXTS[: i % 3]], "negative": None}
        for i, text in enumerate(TEXTS)
    ]
    pairs = [{"sentence1": t, "sentence2": t[::-1], "score": i / 4} for i, t in enumerate(TEXTS)]
    return {
        f"{name}.jsonl": _lines(rows) for name, rows in (("anchors", anchors), ("pairs", pairs))
    }


def choices() -> dict[str, bytes]:
    """Choices in columns, in lists, and in lists with labels of their own."""
    endings = [
        {"sent1": text, "sent2": "it", **{f"ending{k}": TEXTS[k] for k in range(4)}, "label": i % 4}
        for i, text in enumerate(TEXTS)
    ]
    lists = [
        {"question": t, "choices": TEXTS[: 2 + i % 3], "label": 1} for i, t in enumerate(TEXTS)
    ]
    named = [
        {"question": t, "choices": {"text": TEXTS[:3], "label": ["A", "B", "C"]}, "label": "C"}
        for t in TEXTS
    ]
    kinds = {"endings": endings, "lists": lists, "named": named}
    return {f"{name}.jsonl": _lines(rows) for name, rows in kinds.items()}


def queries() -> dict[str, bytes]:
    """A row for each passage, and one for each query."""
    passages = [
        {"query": TEXTS[i // 2], "passage": text, "label": i % 2} for i, text in enumerate(TEXTS)
    ]
    lists = [{"query": t, "positive": t, "negatives": TEXTS[: i % 3]} for i, t in enumerate(TEXTS)]
    kinds = {"passages": passages, "queries": lists}
    return {f"{name}.jsonl": _lines(rows) for name, rows in kinds.items()}


def retrieval() -> dict[str, bytes]:
    """Documents, queries and judgements."""
    corpus = [{"_id": f"d{i}", "title": "t", "text": text} for i, text in enumerate(TEXTS)]
    queries = [{"_id": f"q{i}", "text": text} for i, text in enumerate(TEXTS[:4])]
    judged = "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(4))
    return {
        "corpus.jsonl": _lines(corpus),
        "queries.jsonl": _lines(queries),
        "qrels/test.tsv": judged.encode(),
    }


def mutate_retrieval(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Of judgements the bytes, of texts the lines."""
    is_table = data.startswith(b"query-id")
    return (mutations.mutate_bytes if is_table else mutations.mutate_lines)(rng, data, others)


def read_retrieval(file: Path) -> None:
    """Reads the folder."""
    from jaxtune.data.text.retrieval import read_retrieval

    read_retrieval(file.parent.parent if file.parent.name == "qrels" else file.parent)


def json() -> dict[str, bytes]:
    """An array of records, and an object of splits."""
    rows = [{"text": text, "label": i / 4, "more": {"a": [i]}} for i, text in enumerate(TEXTS)]
    splits = {"train": rows[:8], "val": rows[8:], "oos": [["a", "b"]]}
    return {"array.json": mutations.dumps(rows), "splits.json": mutations.dumps(splits)}


def squad() -> dict[str, bytes]:
    """SQuAD's own object, and an array of records."""
    paragraphs, records = [], []
    for i, answer in enumerate(("cat", "mat", "New York", "all day", "The cat", "", "", "sat")):
        context = f"The cat sat on the mat in New York, all day {i}."
        at = [context.find(answer)] if answer else []
        own = {"id": str(i), "question": f"who {i}?"}
        answers = [{"text": answer, "answer_start": start} for start in at]
        question = own | {"answers": answers, "is_impossible": not answer}
        paragraphs.append({"context": context, "qas": [question]})
        columns = {"text": [answer] * len(at), "answer_start": at}
        records.append(own | {"context": context, "answers": columns})
    data = {"version": "2", "data": [{"title": "t", "paragraphs": paragraphs}]}
    return {"squad.json": mutations.dumps(data), "records.json": mutations.dumps(records)}


def parquet() -> dict[str, bytes]:
    """Texts with names of classes, and with the numbers that Hugging Face's metadata names."""
    rows = [{"text": text, "label": LABELS[i % 3]} for i, text in enumerate(TEXTS)]
    names = {"label": {"names": [*LABELS], "_type": "ClassLabel"}, "text": {"_type": "Value"}}
    numbers = [{"text": text, "label": i % 3} for i, text in enumerate(TEXTS)]
    metadata = {"huggingface": json_text.dumps({"info": {"features": names}})}
    return {"plain.parquet": _write(rows), "declared.parquet": _write(numbers, metadata)}


def mutate_parquet(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Changes bytes, or writes the rows or the metadata anew, changed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = rng.randrange(3)
    if kind == 0:
        return mutations.mutate_bytes(rng, data, others)
    table = pq.read_table(io.BytesIO(data))
    rows, metadata = table.to_pylist(), table.schema.metadata or {}
    metadata = {
        name.decode(): value.decode() for name, value in metadata.items() if b"hugg" in name
    }
    try:
        if kind == 1 and metadata:
            found = json_text.loads(metadata["huggingface"])
            changed = mutations.dumps(mutations.mutate_value(rng, found)).decode()
            return _write(rows, {"huggingface": changed})
        name = rng.choice(("text", "label"))
        if rng.random() < 0.5:  # a column of another type
            value = rng.choice(
                (b"\xff", 1.5, True, None, [1], {"a": "b"}, ["a"], 2**40, "x" * 9000)
            )
            rows = [row | {name: value} for row in rows]
        else:
            rows[rng.randrange(len(rows))][name] = rng.choice(mutations.VALUES)
        return _write(rows, metadata)
    except (pa.ArrowException, OverflowError, UnicodeError, TypeError):  # no Arrow table can be so
        return mutations.mutate_bytes(rng, data, others)


def images() -> dict[str, bytes]:
    """One of each format, all named alike: the contents say what a file is."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    found = {}
    for kind in ("png", "jpeg", "gif", "bmp", "webp", "tiff", "ppm"):
        stream = io.BytesIO()
        options = {"exif": exif} if kind in ("jpeg", "webp", "png") else {}
        image.save(stream, kind, **options)
        found[f"{kind}.png"] = stream.getvalue()
    for kind, mode in (
        ("png", "P"),
        ("png", "I;16"),
        ("tiff", "CMYK"),
        ("png", "LA"),
        ("png", "1"),
    ):
        stream = io.BytesIO()
        (image.convert("L") if mode == "I;16" else image).convert(mode).save(stream, kind)
        found[f"{mode[0]}-{kind}.png"] = stream.getvalue()
    return found


def read_image(file: Path) -> None:
    """Decodes it, as new data is."""
    from jaxtune.data.images.images import read_new

    read_new(file)


def preprocessor() -> dict[str, bytes]:
    """Of ViT and of ConvNext."""
    common = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "resample": 2}
    flags = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
    vit = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    deit = {"image_processor_type": "DeiTImageProcessor", "size": {"height": 20, "width": 20}}
    deit |= {"do_center_crop": True, "crop_size": {"height": 16, "width": 16}}
    convnext = {"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875}
    convnext |= {"size": {"shortest_edge": 16}}
    return {
        f"{name}/preprocessor_config.json": mutations.dumps(common | flags | fields)
        for name, fields in (("vit", vit), ("deit", deit), ("convnext", convnext))
    }


def read_preprocessor(file: Path) -> None:
    """Reads it, and makes one small image as it says."""
    from PIL import Image

    from jaxtune.data.images.preprocessor_config import load_image_processor

    processor = load_image_processor(file.parent)
    if max(processor.shape) <= 1024:
        processor.normalize(np.asarray(processor.resize(Image.new("RGB", (20, 30)))))


def _tokenizer() -> Any:
    import model_files

    return model_files.tiny_tokenizer()


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(mutations.dumps(row) + b"\n" for row in rows)


def _write(rows: list[dict[str, Any]], metadata: dict[str, str] | None = None) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows)
    stream = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata or None), stream)
    return stream.getvalue()
