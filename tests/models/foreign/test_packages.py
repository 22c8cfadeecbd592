"""Logits equal to those of torchvision, smp and transformers themselves, given the same random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torchvision.models import get_model

from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models.acceleration.fold_batch_norm import fold_batch_norms
from idd_seg.models.foreign.huggingface import HuggingFace
from idd_seg.models.foreign.input import InputFormat
from idd_seg.models.foreign.network import Opened
from idd_seg.models.foreign.smp import SMP
from idd_seg.models.foreign.torchvision import TorchVision
from tests.models.foreign.networks import CLASSES, image, labelled, plain_input, randomise, segformer

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


def open_torchvision(path: Path, name: str) -> Opened:
    return TorchVision.open(str(path), lambda **o: TorchVision(input=plain_input(), name=name, **o))


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
@torch.no_grad()
def test_torchvision(name: str, tmp_path: Path) -> None:
    auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
    theirs = get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES, **auxiliary)
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    found = open_torchvision(tmp_path / "a.pth", name)
    fold_batch_norms(found.network.eval(), image(64, 96))
    outputs = found.network(image(64, 96))
    expected = theirs(image(64, 96))["out"]
    logits = F.interpolate(outputs.logits, (64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, expected, **TOLERANCE)
    assert {"stage4", "head"} <= set(outputs.features)
    assert found.network.channels == {k: v.shape[1] for k, v in outputs.features.items()}
    assert any("aux_classifier" in line for line in found.said) == bool(auxiliary)


def test_torchvision_gives_all_stages_of_a_resnet() -> None:
    network = TorchVision(CLASSES, plain_input(), "fcn_resnet50")
    assert network.channels == {"stage1": 256, "stage2": 512, "stage3": 1024, "stage4": 2048, "head": 512}


ARCHITECTURES = {
    "Unet": {"decoder_channels": [32, 16, 16, 8, 8]},
    "FPN": {},
    "DeepLabV3Plus": {"decoder_channels": 16, "decoder_atrous_rates": [2, 4, 6]},
    "PSPNet": {"psp_out_channels": 16},
    "UPerNet": {"decoder_channels": 16},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_smp(architecture: str, tmp_path: Path) -> None:
    options = ARCHITECTURES[architecture]
    theirs = getattr(smp, architecture)("resnet18", encoder_weights=None, classes=CLASSES, **options)
    randomise(theirs)
    torch.save({"model_state": theirs.state_dict(), "epoch": 3}, tmp_path / "a.pth")
    build = partial(SMP, input=plain_input(), architecture=architecture, encoder="resnet18", options=options)
    found = SMP.open(str(tmp_path / "a.pth"), build)
    network = found.network.eval()
    torch.testing.assert_close(network(image(64, 96)).logits, theirs(image(64, 96)), **TOLERANCE)
    fold_batch_norms(network, image(64, 96))
    outputs = network(image(64, 96))
    torch.testing.assert_close(outputs.logits, theirs(image(64, 96)), **TOLERANCE)
    assert found.network.channels == {k: v.shape[1] for k, v in outputs.features.items()}
    assert "head" in outputs.features


@torch.no_grad()
def test_smp_scales_sides_that_it_can_not_take() -> None:
    network = SMP(CLASSES, plain_input(), "Unet", "resnet18", {"decoder_channels": [8, 8, 8, 8, 8]}).eval()
    assert network(image(50, 70)).logits.shape == (2, CLASSES, 64, 96)


SMALL_SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4, "image_size": 64}


def upernet() -> nn.Module:
    trunk = transformers.ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = transformers.UperNetConfig(backbone_config=trunk, hidden_size=16, auxiliary_channels=8)
    return labelled(transformers.UperNetForSemanticSegmentation, config)


def dpt() -> nn.Module:
    config = transformers.DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        auxiliary_loss_weight=0.4,
    )
    return labelled(transformers.DPTForSemanticSegmentation, config)


def mask2former() -> nn.Module:
    trunk = transformers.SwinConfig(**SMALL_SWIN, out_features=["stage1", "stage2", "stage3", "stage4"])
    config = transformers.Mask2FormerConfig(
        backbone_config=trunk,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
    )
    return labelled(transformers.Mask2FormerForUniversalSegmentation, config)


def from_folder(folder: Path, build_input: Callable[..., InputFormat] | None = None) -> Opened:
    sees = build_input or partial(
        InputFormat, mean=[0.0] * 3, std=[1.0] * 3, scale=1.0, data_mean=[0.0] * 3, data_std=[1.0] * 3
    )
    return HuggingFace.open(str(folder), partial(HuggingFace, input=sees))


def upsampled(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("build", [segformer, upernet, dpt])
@torch.no_grad()
def test_transformers(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    theirs = build()
    theirs.save_pretrained(tmp_path)
    found = from_folder(tmp_path)
    outputs = found.network.eval()(image(64, 64))
    expected = theirs(image(64, 64)).logits
    logits = upsampled(outputs.logits, (64, 64)) if build is upernet else outputs.logits
    torch.testing.assert_close(logits, expected, **TOLERANCE)
    assert found.class_names == [f"class {i}" for i in range(CLASSES)]
    assert found.network.channels == {k: v.shape[1] for k, v in outputs.features.items()}
    assert set(outputs.features) == {"head"} | (set() if build is dpt else {f"stage{i}" for i in (1, 2, 3, 4)})


@torch.no_grad()
def test_a_fixed_size_is_kept(tmp_path: Path) -> None:
    dpt().save_pretrained(tmp_path)
    assert from_folder(tmp_path).network.eval()(image(40, 90)).logits.shape == (2, CLASSES, 64, 64)


@torch.no_grad()
def test_mask_classification(tmp_path: Path) -> None:
    theirs = mask2former()
    theirs.save_pretrained(tmp_path)
    found = from_folder(tmp_path)
    outputs, said = found.network.eval()(image(64, 64)), theirs(image(64, 64))
    expected = torch.zeros_like(outputs.logits)
    for n in range(2):
        for query in range(6):
            chances = said.class_queries_logits[n, query].softmax(0)[:CLASSES]
            expected[n] += chances[:, None, None] * said.masks_queries_logits[n, query].sigmoid()
    torch.testing.assert_close(outputs.logits.exp(), expected, **TOLERANCE)
    assert set(outputs.features) == {"head", "stage1", "stage2", "stage3", "stage4"}
    maps = transformers.Mask2FormerImageProcessor().post_process_semantic_segmentation(said, [(64, 64)] * 2)
    ours = upsampled(outputs.logits, (64, 64)).argmax(1)
    assert (ours == torch.stack(maps)).float().mean() > 0.98  # theirs goes by way of 384 x 384


def test_the_folder_says_how_pictures_are_normalised(tmp_path: Path) -> None:
    segformer().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1], "rescale_factor": 1 / 255})
    )
    open_ = partial(InputFormat, data_mean=[0.4] * 3, data_std=[0.1] * 3, mean=None, std=None, scale=None)
    sees = from_folder(tmp_path, open_).network.input
    picture = torch.rand(1, 3, 4, 4)
    expected = (picture - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.2, 0.1]).view(3, 1, 1)
    torch.testing.assert_close(sees((picture - 0.4) / 0.1), expected)


def test_half_a_network_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    segformer().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    del weights["decode_head.batch_norm.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing, the first is decode_head.batch_norm.weight"):
        from_folder(tmp_path)
    save_file(
        {**weights, "decode_head.batch_norm.weight": torch.ones(12), "odd": torch.ones(1)}, path, {"format": "pt"}
    )
    with pytest.raises(CheckpointError, match=r"1 tensors are not known, the first is odd"):
        from_folder(tmp_path)


def test_pickled_weights_and_other_networks_are_refused(tmp_path: Path) -> None:
    segformer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, which would have to be unpickled"):
        from_folder(tmp_path)
    transformers.ConvNextModel(transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1] * 4)).save_pretrained(
        tmp_path
    )
    with pytest.raises(CheckpointError, match="type 'convnext', which does not segment"):
        from_folder(tmp_path)


def test_code_in_a_folder_is_not_executed(tmp_path: Path) -> None:
    segformer().save_pretrained(tmp_path)
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}')
    with pytest.raises(CheckpointError, match=r"transformers can't use its config\.json"):
        from_folder(tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://example.org/a", "is a URL"),
        ("nowhere", "there is no folder 'nowhere', and it is no name of a repository"),
        ("nobody/nothing", "the repository is not in the local cache, and the hub can't be reached"),
    ],
)
def test_what_is_not_there(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_folder(Path(name) if "://" not in name else name)  # type: ignore[arg-type]


def test_unknown_names_are_refused_with_the_nearest_known() -> None:
    with pytest.raises(ConfigError, match="did you mean 'deeplabv3_resnet101'"):
        TorchVision(5, plain_input(), "deeplab_resnet101")
    with pytest.raises(ConfigError, match="did you mean 'Unet'"):
        SMP(5, plain_input(), "UNet", "resnet18")
    with pytest.raises(ConfigError, match="smp can't build Unet with 'resnet19'"):
        SMP(5, plain_input(), "Unet", "resnet19")
    with pytest.raises(ConfigError, match="without activation and aux_params"):
        SMP(5, plain_input(), "Unet", "resnet18", {"activation": "softmax"})


@pytest.mark.parametrize("build", [segformer, upernet, dpt, mask2former])
@torch.no_grad()
def test_batch_norms_of_transformers_fold(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    """What the map before the classifier is read by must not get in the way."""
    build().save_pretrained(tmp_path)
    network = from_folder(tmp_path).network.eval()
    before = network(image(64, 64))
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    assert fold_batch_norms(network, image(64, 64)) <= norms
    after = network(image(64, 64))
    torch.testing.assert_close(after.logits, before.logits, **TOLERANCE)
    torch.testing.assert_close(after.features["head"], before.features["head"], **TOLERANCE)
