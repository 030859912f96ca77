"""Folders of sentence-transformers: both spellings are read, the older is written, others not."""

import json

import pytest

from jaxtune.core.errors import UserError
from jaxtune.models.pooling import Pooling
from jaxtune.models.sentence_files import SentenceFiles, read_sentence_files, sentence_files

OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
}


def write(folder, names, pooling, new=False, paths=("", "1_Pooling", "2_Normalize"), **files):
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": NEW[name] if new else OLD + name}
        for i, (name, path) in enumerate(zip(names, paths, strict=False))
    ]
    put(folder / "modules.json", modules)
    put(folder / "1_Pooling" / "config.json", pooling)
    for name, content in files.items():
        put(folder / f"{name}.json", content)
    return folder


def put(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


PAIR = ("Transformer", "Pooling")


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize(
    ("pooling", "how"),
    [
        ({"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"embedding_dimension": 8, "pooling_mode": "cls", "include_prompt": True}, "first"),
        ({"embedding_dimension": 8, "pooling_mode": ["lasttoken"]}, "last"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"embedding_dimension": 8}, "mean"),
    ],
)
def test_both_spellings_are_read(pooling, how, new, tmp_path):
    names = (*PAIR, "Normalize")
    settings = {"prompts": {"query": "q: ", "passage": "p: ", "document": ""}}
    sizes = {"max_seq_length": 77, "do_lower_case": False}
    folder = write(
        tmp_path,
        *(names, pooling, new),
        config_sentence_transformers=settings,
        sentence_bert_config=sizes,
    )
    found = read_sentence_files(folder)
    assert found == SentenceFiles(Pooling(how, True), {"query": "q: ", "passage": "p: "}, 77)
    assert found.known_prompts() == {"query_prompt": "q: ", "document_prompt": "p: "}
    plain = read_sentence_files(write(tmp_path / "plain", PAIR, pooling, new))
    assert plain == SentenceFiles(Pooling(how, False))


def test_another_folder_says_nothing(tmp_path):
    assert read_sentence_files(tmp_path) is None


@pytest.mark.parametrize("how", ["mean", "first", "last"])
@pytest.mark.parametrize("normalize", [True, False])
def test_what_is_written_is_read(how, normalize, tmp_path):
    given = SentenceFiles(Pooling(how, normalize), {"query": "q: ", "document": "d: "}, 40)
    for name, content in sentence_files(given, 16).items():
        put(tmp_path / name, content)
    assert read_sentence_files(tmp_path) == given


MEAN = {"pooling_mode_mean_tokens": True}
REFUSED = [
    (((*PAIR, "Dense"), MEAN), {}, "module 2 is 'Dense' in '2_Normalize'"),
    ((("Transformer", "Normalize", "Pooling"), MEAN), {}, "module 1 is 'Normalize'"),
    ((("Transformer",), MEAN), {}, "expected a Pooling"),
    ((PAIR, MEAN), {"paths": ("0_Transformer", "1_Pooling")}, "'Transformer' in '0_Transformer'"),
    ((PAIR, MEAN), {"paths": ("", "../1_Pooling")}, "leaves the folder"),
    ((PAIR, {"pooling_mode_max_tokens": True}), {}, r"the pooling is \['max'\]"),
    ((PAIR, MEAN | {"pooling_mode_cls_token": True}), {}, r"\['cls', 'mean'\]"),
    ((PAIR, {"pooling_mode": "weightedmean"}), {}, "weightedmean"),
    ((PAIR, {"pooling_mode": 3}), {}, r"the pooling is \[3\]"),
    ((PAIR, MEAN | {"include_prompt": False}), {}, "include_prompt is False"),
    (
        (PAIR, MEAN),
        {"config_sentence_transformers": {"model_type": "SparseEncoder"}},
        "model_type is 'SparseEncoder'",
    ),
    (
        (PAIR, MEAN),
        {"config_sentence_transformers": {"default_prompt_name": "query"}},
        "default_prompt_name is 'query'",
    ),
    ((PAIR, MEAN), {"config_sentence_transformers": {"prompts": {"query": 3}}}, "prompts is"),
    ((PAIR, MEAN), {"sentence_bert_config": {"do_lower_case": True}}, "do_lower_case is true"),
    ((PAIR, MEAN), {"sentence_bert_config": {"max_seq_length": "9"}}, "max_seq_length is '9'"),
]


@pytest.mark.parametrize(("given", "more", "message"), REFUSED)
@pytest.mark.parametrize("new", [False, True])
def test_what_is_computed_otherwise_is_refused_by_name(given, more, message, new, tmp_path):
    with pytest.raises(UserError, match=message):
        read_sentence_files(write(tmp_path, *given, new, **more))


@pytest.mark.parametrize("content", ["[", "{}", "[]", "[1]", '[{"type": "a"}]', "null"])
def test_a_list_of_modules_that_is_none_is_refused(content, tmp_path):
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(UserError, match=r"modules\.json"):
        read_sentence_files(tmp_path)


def test_a_normalize_of_tokens_is_refused(tmp_path):
    folder = write(tmp_path, (*PAIR, "Normalize"), MEAN, new=True)
    put(folder / "2_Normalize" / "config.json", {"module_input_name": "token_embeddings"})
    with pytest.raises(UserError, match="module 2 is 'Normalize'"):
        read_sentence_files(folder)
