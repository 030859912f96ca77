"""Makes `images/`: what transformers and torchvision make of three small images.

    pip install torch==2.13.0 torchvision==0.29.1 transformers==5.24.0 pillow==13.0.0
    python tests/golden/make_images.py

`processors.npz` has the images `image/I` (uint8 [h w c]), the `preprocessor_config.json` of each
case as text, `config/CASE`, and `pixel_values/CASE/I` of transformers' processor of that type on
Pillow, [c h w] with every `stride/CASE`-th row and column.

`rand_augment.npz` has an `image` and `OPERATION/BIN/SIGN`, what torchvision's RandAugment makes of
it by each operation at some of its 31 magnitudes.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import transformers
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment, autoaugment

OUT = Path(__file__).parent / "images"
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CASES = {
    "vit": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "resample": 2,
    },
    "vit_old": {"feature_extractor_type": "ViTFeatureExtractor", "size": 16, **IMAGENET},
    "vit_oblong": {
        "image_processor_type": "ViTImageProcessorFast",
        "size": {"height": 12, "width": 20},
        "resample": 3,
        "do_normalize": False,
        "rescale_factor": 0.0078125,
    },
    "vit_cropped": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"shortest_edge": 18},
        "resample": 1,
        "do_center_crop": True,
        "crop_size": 15,
        "image_mean": 0.25,
    },
    "vit_padded": {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "do_center_crop": True,
        "crop_size": {"height": 17, "width": 24},
        "do_rescale": False,
        "do_normalize": False,
    },
    "deit": {"image_processor_type": "DeiTImageProcessor", "size": 20, "crop_size": 16},
    "bit": {"image_processor_type": "BitImageProcessor", "size": 20, "crop_size": 16},
    "bit_published": {  # as DINOv2's folders have it, smaller
        "image_processor_type": "BitImageProcessor",
        "crop_size": {"height": 14, "width": 14},
        "do_center_crop": True,
        "resample": 3,
        "size": {"shortest_edge": 16},
        **IMAGENET,
    },
    "convnext": {
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "size": 16,
        "crop_pct": 0.875,
        "resample": 3,
        **IMAGENET,
    },
    "convnext_new": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 15},
        "resample": 2,
    },
    "convnext_warped": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 384},
        "crop_pct": 0.95,
    },
}
STRIDES = {"convnext_warped": 29}
BINS = (0, 2, 9, 20, 30)


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Waves and a little noise, uint8 [h w c]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + c) + seed) * np.cos(y / (5 - c)) for c in range(3)]
    values = 128 + 100 * np.stack(waves, axis=-1) + rng.normal(0, 15, (height, width, 3))
    return values.clip(0, 255).astype(np.uint8)


def processors() -> dict[str, np.ndarray]:
    images = [picture(37, 53, 0), picture(64, 45, 1), picture(9, 30, 2)]
    found = {f"image/{i}": image for i, image in enumerate(images)}
    for case, fields in CASES.items():
        text = json.dumps(fields)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "preprocessor_config.json").write_text(text)
            processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        assert type(processor).__name__.endswith("Pil"), processor
        stride = STRIDES.get(case, 1)
        found |= {f"config/{case}": np.array(text), f"stride/{case}": np.array(stride)}
        for i, image in enumerate(images):
            (pixels,) = processor([Image.fromarray(image)])["pixel_values"]
            found[f"pixel_values/{case}/{i}"] = np.asarray(pixels)[:, ::stride, ::stride]
    return found


def rand_augment() -> dict[str, np.ndarray]:
    image = picture(13, 16, 3)
    found = {"image": image}
    space = RandAugment()._augmentation_space(31, image.shape[:2])
    for name, (magnitudes, signed) in space.items():
        for place in BINS if magnitudes.ndim else (0,):
            magnitude = float(magnitudes[place]) if magnitudes.ndim else 0.0
            for sign in (1, -1) if signed else (1,):
                changed = autoaugment._apply_op(
                    Image.fromarray(image), name, sign * magnitude, InterpolationMode.NEAREST, None
                )
                found[f"{name}/{place}/{sign}"] = np.asarray(changed)
    return found


def main() -> None:
    OUT.mkdir(exist_ok=True)
    np.savez_compressed(OUT / "processors.npz", **processors())
    np.savez_compressed(OUT / "rand_augment.npz", **rand_augment())


if __name__ == "__main__":
    main()
