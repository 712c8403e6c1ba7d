"""Any timm model is fitted to the images, or one sentence says why not."""

import pytest
import torch

from blockqnn.errors import SettingsError
from blockqnn.network.timm_networks import build_comparator


def build(name, size=32, **more):
    return build_comparator(name, num_classes=4, in_channels=3, image_size=size, **more)


def test_a_model_for_one_size_is_made_for_this_one():
    network = build("vit_tiny_patch16_224", drop_path=0.2)
    assert network.training
    assert network.patch_embed.img_size == (32, 32)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("resnt18", {}, "'resnt18', which timm does not know: did you mean resnet18, "),
        ("hf-hub:x", {}, r"'hf-hub:x', which timm does not know: see timm.list_models\(\)$"),
        ("densenet121", {"drop_path": 0.2}, "has no drop_path: set recipe.drop_path to 0 for all"),
        ("convnext_atto", {"size": 8}, r"does not take 8x8 images \(.*Kernel size.*\): choose"),
    ],
)
def test_what_does_not_fit_is_one_sentence(name, options, sentence):
    with pytest.raises(SettingsError, match=sentence):
        build(name, **options)
