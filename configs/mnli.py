"""BERT-base on MultiNLI: does one sentence follow from another, contradict it, or neither.

    python -m jaxtune.main --config=configs/mnli.py --workdir=runs/mnli

Batch, rate and epochs are those of Devlin et al. 2019, BERT, section 4.1 (32, the best of 2e-5 to
5e-5, 3); there the accuracy of BERT-base is 84.6 on the matched test split and 83.4 on the other,
whose labels are withheld. Scores are of the validation split `validation_matched`; those of the
other follow from its file: jaxtune evaluate --config=mnli --workdir=runs/mnli
--config.data.path=FOLDER/dev_mismatched.tsv. 392,702 training pairs: two hours on an accelerator
that trains 160 pairs/s.

Offline: --config.model.path=FOLDER --config.data.path=FOLDER, with GLUE's own files (columns
sentence1, sentence2 and gold_label) or others with these columns.
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.model.path = "google-bert/bert-base-uncased"
    config.data.path = "nyu-mll/glue"
    config.data.name = "mnli"
    config.data.text_columns = ("premise", "hypothesis")
    config.data.max_length = 128
    config.optimizer.learning_rate = 2e-5
    config.train.num_epochs = 3
    config.train.batch_size = 32
    config.train.best_metric = "accuracy"
    return config
