"""Folders with the tokenizer of each family, in every layout that is published."""

import json

from tokenizers import (
    AddedToken,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = ["The Harbour in 2019", "EU ships at noon", "the naïve harbour 1987, EU's"] * 3
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def word_piece(**normal):
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(**normal)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=[*BERT], show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return backend


def byte_level(prefix, special, post=None):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    if post is not None:
        backend.post_processor = post
    return backend


def roberta(prefix):
    post = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=prefix)
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return byte_level(prefix, (*ROBERTA[:4], mask), post)


def unigram():
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=[*ROBERTA], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return backend


KINDS = {
    "bert": (lambda: word_piece(lowercase=False, strip_accents=False), {}),
    "bert, lower case": (lambda: word_piece(lowercase=True), {"do_lower_case": True}),
    "bert, accents": (lambda: word_piece(lowercase=True, strip_accents=False), {}),
    "distilbert": (
        lambda: word_piece(lowercase=False),
        {"tokenizer_class": "DistilBertTokenizer"},
    ),
    "modernbert": (
        lambda: byte_level(False, BERT, word_piece().post_processor),
        {"tokenizer_class": "PreTrainedTokenizerFast"},
    ),
    "roberta": (lambda: roberta(True), {"tokenizer_class": "RobertaTokenizer"}),
    "xlm-roberta": (unigram, {"tokenizer_class": "XLMRobertaTokenizerFast"}),
    "gpt2": (lambda: byte_level(False, ["<|endoftext|>"]), {"tokenizer_class": "GPT2Tokenizer"}),
    "gpt2, prefix": (lambda: byte_level(True, ["<|endoftext|>"]), {}),
}
"""The tokenizer of a family, and a config that says little of it."""


def make(folder, kind, **fields):
    backend, config = KINDS[kind]
    folder.mkdir(exist_ok=True)
    backend = backend()
    backend.enable_truncation(4)  # which no folder should decide
    backend.enable_padding(length=9)
    backend.save(str(folder / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 64} | config | fields)
    )
    model = {"model_type": kind.split(",")[0], "vocab_size": backend.get_vocab_size()}
    (folder / "config.json").write_text(json.dumps(model))
    return backend


def write_slow_files(folder, backend):
    """The vocabulary as transformers of old wrote it, and nothing else of the tokenizer."""
    (folder / "tokenizer.json").unlink()
    for file in backend.model.save(str(folder)):
        assert file
