"""BERT-base on SST-2: is a sentence of a film review positive or negative.

    python -m jaxtune.main --config=configs/sst2.py --workdir=runs/sst2

Recipe of the examples of transformers for GLUE: rate 2e-5, batch 32, 3 epochs, at most 128 tokens;
there accuracy 0.923 on the validation split, whose scores these are too, as the test labels are
withheld. 67,349 training rows: 12 minutes on an accelerator that trains 300 examples/s.

Offline: --config.model.path=FOLDER --config.data.path=FOLDER, with files such as train.tsv and
dev.tsv.
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.model.path = "google-bert/bert-base-cased"
    config.data.path = "nyu-mll/glue"
    config.data.name = "sst2"
    config.data.text_columns = ("sentence",)
    config.data.max_length = 128
    config.optimizer.learning_rate = 2e-5
    config.train.num_epochs = 3
    config.train.batch_size = 32
    config.train.best_metric = "accuracy"
    return config
