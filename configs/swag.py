"""BERT-base on SWAG: which of four sentences goes on with what came before.

    python -m jaxtune.main --config=configs/swag.py --workdir=runs/swag

The recipe of Devlin et al. 2019, BERT, section 4.4: rate 2e-5, batch 16, 3 epochs; there the
accuracy of BERT-base is 81.6 on the validation split, whose scores these are too, as the test
labels are withheld. 73,546 prompts of four pairs each, which are packed: two hours on an
accelerator that trains 120 pairs/s.

Offline: --config.model.path=FOLDER --config.data.path=FOLDER, with SWAG's own csv files (train.csv
and val.csv) or others with a prompt and its choices.
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.task = "multiple_choice"
    config.model.path = "google-bert/bert-base-uncased"
    config.data.path = "allenai/swag"
    config.data.name = "regular"
    config.data.max_length = 128
    config.optimizer.learning_rate = 2e-5
    config.train.num_epochs = 3
    config.train.batch_size = 16
    return config
