"""A ResNet on CIFAR-10, from scratch: images of 32 x 32 pixels in ten classes.

    python -m jaxtune.main --config=configs/cifar10.py --workdir=runs/cifar10

The model is drawn from configs/resnet_cifar/config.json: basic layers, 2.8 million parameters. Its
stem halves the image twice, as that of every ResNet in transformers, so images are enlarged to 64
pixels. AdamW with a rate of 2e-3 down to 0 in a cosine; images are shifted and mirrored.

Offline: --config.data.path=FOLDER, with images in train/CLASS/ and test/CLASS/.
"""

from pathlib import Path

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.task = "image_classification"
    config.model.path = str(Path(__file__).parent / "resnet_cifar")
    config.model.from_scratch = True
    config.data.path = "uoft-cs/cifar10"
    config.data.image_column = "img"
    config.data.augmentation.crop = "pad"
    config.data.augmentation.flip = True
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 0.05
    config.train.num_epochs = 30
    config.train.batch_size = 64
    config.train.eval_batch_size = 200
    return config
