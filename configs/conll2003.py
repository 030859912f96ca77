"""BERT-base on CoNLL-2003: names of persons, places, organisations and others (NER).

    python -m jaxtune.main --config=configs/conll2003.py --workdir=runs/conll2003

Batch, rate and epochs are from the grid of Devlin et al. 2019, BERT, appendix A.3, whose BERT-base
has an entity F1 of 0.924 on the test split (with the rest of the document around each sentence,
which this does not use: expect 0.91). 14,041 sentences: four minutes on an accelerator that trains
300 examples/s.

Offline: --config.model.path=FOLDER --config.data.path=FOLDER, with train.conll, valid.conll and
test.conll (first field the word, last field the tag).
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.task = "token_classification"
    config.model.path = "google-bert/bert-base-cased"
    config.data.path = "tomaarsen/conll2003"
    config.data.text_columns = ("tokens",)
    config.data.label_column = "ner_tags"
    config.data.max_length = 256
    config.optimizer.learning_rate = 5e-5
    config.train.num_epochs = 4
    config.train.batch_size = 32
    return config
