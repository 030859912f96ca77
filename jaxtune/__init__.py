"""jaxtune: fine-tune pretrained models in JAX, and pay only for what you train.

The public names are imported from the modules that define them, for example
`from jaxtune.train.step import make_train_step`; the README's map says where each lives.
"""

__version__ = "0.1.0"
