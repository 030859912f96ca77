"""ViT on Food-101: dishes in 101 classes.

    python -m jaxtune.main --config=configs/food101.py --workdir=runs/food101

ViT-B/16, pretrained on ImageNet-21k. Rate 2e-4, batch 128, 5 epochs, cropped at random and
mirrored: a published fine-tuning of this kind (hub id nateraw/food) has an accuracy of 0.891 on the
test images. 75,750 training images: half an hour on an accelerator that trains 200 images/s.

Offline: --config.model.path=FOLDER --config.data.path=FOLDER, with images in train/CLASS/ and
test/CLASS/.
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.task = "image_classification"
    config.model.path = "google/vit-base-patch16-224-in21k"
    config.data.path = "ethz/food101"
    config.data.augmentation.crop = "resized"
    config.data.augmentation.flip = True
    config.data.validation_size = 0.05
    config.optimizer.learning_rate = 2e-4
    config.train.num_epochs = 5
    config.train.batch_size = 128
    return config
