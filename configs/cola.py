"""BERT-base on CoLA: is a sentence good English.

    python -m jaxtune.main --config=configs/cola.py --workdir=runs/cola

Recipe of the examples of transformers for GLUE: rate 2e-5, batch 32, 3 epochs, at most 128 tokens;
there Matthews correlation 0.565 on the validation split, whose scores these are too, as the test
labels are withheld. 8,551 training rows: two minutes on an accelerator that trains 300 examples/s.

Offline: --config.model.path=FOLDER --config.data.path=FOLDER, with GLUE's own files (train.tsv and
dev.tsv, without a header) or others with a column `sentence`.
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.model.path = "google-bert/bert-base-cased"
    config.data.path = "nyu-mll/glue"
    config.data.name = "cola"
    config.data.text_columns = ("sentence",)
    config.data.column_names = ("source", "label", "mark", "sentence")  # GLUE's file has no header
    config.data.max_length = 128
    config.optimizer.learning_rate = 2e-5
    config.train.num_epochs = 3
    config.train.batch_size = 32
    config.train.best_metric = "mcc"
    return config
