"""BERT-base on SNLI: does one sentence follow from another, contradict it, or neither.

    python -m jaxtune.main --config=configs/snli.py --workdir=runs/snli

The recipe of MultiNLI (Devlin et al. 2019, BERT, section 4.1): rate 2e-5, batch 32, 3 epochs. Pairs
on whose label its writers did not agree, -1 on the hub and - in the original files, are left out:
785 of 550,152 of the training split.

Offline: --config.model.path=FOLDER --config.data.path=FOLDER; of the original files
(snli_1.0_train.jsonl and the like) with --config.data.text_columns=sentence1,sentence2
--config.data.label_column=gold_label.
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.model.path = "google-bert/bert-base-uncased"
    config.data.path = "stanfordnlp/snli"
    config.data.text_columns = ("premise", "hypothesis")
    config.data.no_label = ("-1", "-")
    config.data.max_length = 128
    config.optimizer.learning_rate = 2e-5
    config.train.num_epochs = 3
    config.train.batch_size = 32
    config.train.best_metric = "accuracy"
    return config
