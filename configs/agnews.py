"""BERT-base on AG News: news in four classes, 120,000 for training and 7,600 for the test.

    python -m jaxtune.main --config=configs/agnews.py --workdir=runs/agnews

The rate, batch and epochs are those of Sun et al. 2019, How to Fine-Tune BERT for Text
Classification (section 5.1: base rate 2e-5, warm-up 10%, 4 epochs, batch 24; there about 94.7% on
the test). It wants an accelerator: 25 minutes on one that trains 300 examples/s. On a CPU, point it
at a small model and at fewer rows:

    --config.model.path=FOLDER --config.data.path=FOLDER --config.train.num_epochs=1
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.model.path = "google-bert/bert-base-uncased"
    config.data.path = "fancyzhx/ag_news"
    config.data.text_columns = ("text",)
    config.data.label_column = "label"
    config.data.validation_size = 0.05
    config.data.max_length = 128
    config.optimizer.learning_rate = 2e-5
    config.train.num_epochs = 4
    config.train.batch_size = 24
    config.train.best_metric = "accuracy"
    return config
