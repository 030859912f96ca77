"""BERT-base on MRPC: do two sentences say the same.

    python -m jaxtune.main --config=configs/mrpc.py --workdir=runs/mrpc

Recipe of the examples of transformers for GLUE: rate 2e-5, batch 32, 5 epochs, at most 128 tokens;
there accuracy 0.841 and F1 0.889 on the validation split, whose scores these are too, as the test
labels are withheld. 3,668 training rows: a minute on an accelerator that trains 300 examples/s.

Offline: --config.model.path=FOLDER --config.data.path=FOLDER, with GLUE's own files (train.tsv and
dev.tsv, whose columns have other names) or others with these columns.
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.model.path = "google-bert/bert-base-cased"
    config.data.path = "nyu-mll/glue"
    config.data.name = "mrpc"
    config.data.text_columns = ("sentence1", "sentence2")
    config.data.max_length = 128
    config.optimizer.learning_rate = 2e-5
    config.train.num_epochs = 5
    config.train.batch_size = 32
    config.train.best_metric = "accuracy"
    return config
