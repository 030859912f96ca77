"""GPT-2 on WikiText-2: a language model is adapted to a domain.

    python -m jaxtune.main --config=configs/wikitext.py --workdir=runs/wikitext

Recipe of the examples of transformers for language modelling: rate 5e-5, batch 8, 3 epochs, blocks
of 1,024 tokens; there a perplexity of about 20 on the test split. 2.4 million tokens: ten minutes
on an accelerator.

Offline: --config.model.path=FOLDER --config.data.path=FOLDER, with wiki.train.raw and so on, or
.txt files of your own domain. The model/ that it writes is the model.path of a fine-tuning. For a
BERT set --config.task=masked_lm and --config.data.max_length=512.
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.task = "causal_lm"
    config.model.path = "openai-community/gpt2"
    config.data.path = "Salesforce/wikitext"
    config.data.name = "wikitext-2-raw-v1"
    config.data.text_columns = ("text",)
    config.data.max_length = 1024
    config.optimizer.learning_rate = 5e-5
    config.optimizer.warmup_fraction = 0.0
    config.optimizer.weight_decay = 0.0
    config.train.num_epochs = 3
    config.train.batch_size = 8
    config.train.eval_batch_size = 8
    return config
