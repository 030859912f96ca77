"""BERT-base on AG News: news in four classes, 120,000 for training and 7,600 for the test."""

from ml_collections import ConfigDict

from jaxtune.config import default_config


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
    config.train.batch_size = 32
    return config
