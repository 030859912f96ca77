"""BERT-base on SQuAD 1.1: the part of a text that answers a question.

    python -m jaxtune.main --config=configs/squad.py --workdir=runs/squad

Recipe of the examples of transformers for question answering: rate 3e-5, batch 12, 2 epochs,
windows of 384 tokens that share 128; there exact match 0.812 and F1 0.885 on the validation split.
88,000 windows: 20 minutes on an accelerator that trains 150 of them a second.

Offline: --config.model.path=FOLDER --config.data.path=FOLDER, with files such as train-v1.1.json
and dev-v1.1.json. For SQuAD 2.0, with questions that have no answer, nothing else changes.
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.task = "question_answering"
    config.model.path = "google-bert/bert-base-uncased"
    config.data.path = "rajpurkar/squad"
    config.data.text_columns = ("question", "context")
    config.data.label_column = "answers"
    config.data.max_length = 384
    config.data.doc_stride = 128
    config.optimizer.learning_rate = 3e-5
    config.train.num_epochs = 2
    config.train.batch_size = 12
    return config
