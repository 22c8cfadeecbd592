"""Networks of other than three channels, and teachers that are shown some of the data's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from idd_seg.config.teacher_channels import normalisation, shown_channels
from idd_seg.config.teacher_file import as_trained
from idd_seg.errors import ConfigError
from idd_seg.models.backbone import Backbone, adapted
from idd_seg.models.freeze import freeze
from idd_seg.models.heads.fcn import FCNHead
from idd_seg.models.mit import FIRST, MixTransformer
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.teacher import FrozenTeacher

SMALL = {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}
DEEP = {**SMALL, "stem_type": "deep", "stem_width": 8}


def expected(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """The rule, written out: a sum for one channel, else R, G, B in turn, scaled so that the sums stay alike."""
    if channels == 1:
        return weight[:, 0:1] + weight[:, 1:2] + weight[:, 2:3]
    return torch.stack([weight[:, i % 3] * 3 / channels for i in range(channels)], 1)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
@pytest.mark.parametrize("options", [SMALL, DEEP], ids=["plain stem", "deep stem"])
def test_weights_of_three_channels_are_adapted(channels: int, options: dict[str, Any], tmp_path: Path) -> None:
    three = Backbone("resnet18", 8, options)
    save_file(three.net.state_dict(), tmp_path / "w.safetensors")
    found = Backbone("resnet18", 8, options, weights=str(tmp_path / "w.safetensors"), in_channels=channels)
    state, other = three.net.state_dict(), found.net.state_dict()
    (key,) = [name for name in state if state[name].shape != other[name].shape]
    assert torch.allclose(other[key], expected(state[key], channels), atol=1e-6)
    assert all(torch.equal(state[name], other[name]) for name in state if name != key)
    # Channels that are all equal give what three of them gave.
    grey = torch.rand(1, 1, 32, 32)
    before, after = (net.eval()(grey.expand(1, n, 32, 32)) for net, n in ((three, 3), (found, channels)))
    if channels in (1, 6):
        assert torch.allclose(before[-1], after[-1], atol=1e-4)
    assert [x.shape for x in before] == [x.shape for x in after]


def test_a_network_of_another_shape_is_not_adapted() -> None:
    nets = [torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(4, 8, 3)]
    assert adapted(*nets, "x", 4).weight.shape[1] == 4  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="the ImageNet weights of 'x' can't be adapted to images of 4 channels"):
        adapted(torch.nn.Linear(3, 8), torch.nn.Linear(4, 8), "x", 4)


def test_weights_of_a_mix_transformer_are_adapted(tmp_path: Path) -> None:
    size: dict[str, Any] = {"widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2)}
    state = MixTransformer(**size).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    found = MixTransformer(32, None, False, str(tmp_path / "w.safetensors"), 5, **size)
    assert torch.allclose(found.state_dict()[FIRST], expected(state[FIRST], 5), atol=1e-6)
    assert len(found.eval()(torch.rand(1, 5, 64, 64))) == 4


def network(channels: int) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter("resnet18", FCNHead, 3, options=SMALL, auxiliary=False, in_channels=channels).eval()


def test_a_student_of_four_channels_sees_and_is_frozen() -> None:
    student = network(4)
    assert student(torch.rand(2, 4, 32, 32)).logits.shape[:2] == (2, 3)
    freeze(student, ["stage1"])
    assert not next(student.backbone.parameters()).requires_grad
    with pytest.raises(ConfigError, match="in_channels must be at least 1"):
        network(0)


def config(channels: Any, there: int = 4) -> Any:
    data = {"channels": there, "mean": [0.1, 0.2, 0.3, 0.4][:there], "std": [0.5, 0.6, 0.7, 0.8][:there]}
    return OmegaConf.create({"teacher": {"channels": channels}, "data": data})


def test_a_teacher_of_rgb_sees_of_four_channels_what_it_saw_of_three() -> None:
    rgb, saved = (
        network(3),
        SimpleNamespace(config=lambda group: {"mean": [0.485, 0.456, 0.406], "std": [0.2, 0.3, 0.4]}),
    )
    unit = torch.rand(2, 4, 32, 32)

    def normalised(order: list[int], mean: list[float], std: list[float]) -> torch.Tensor:
        return (unit[:, order] - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)

    cfg = config([2, 1, 0])
    shown = shown_channels(cfg, 3)
    seen = normalisation(cfg, shown)
    assert seen["data_mean"] == [0.3, 0.2, 0.1]
    teacher = FrozenTeacher(as_trained(rgb, saved, seen["data_mean"], seen["data_std"]), None, 1.0, shown, 3)  # type: ignore[arg-type]
    found = teacher(normalised([0, 1, 2, 3], [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8])).logits
    with torch.no_grad():
        plain = rgb(normalised([2, 1, 0], [0.485, 0.456, 0.406], [0.2, 0.3, 0.4])).logits
    assert torch.allclose(found, plain, atol=1e-4)


def test_a_teacher_of_all_channels_is_shown_all() -> None:
    assert shown_channels(config(None), 4) is None
    assert shown_channels(config([0, 1, 2, 3]), 4) is None
    assert shown_channels(config([0, 0, 0], 1), 3) == [0, 0, 0]  # grey to a teacher of RGB


@pytest.mark.parametrize(
    ("channels", "own", "message"),
    [
        (None, 3, r"takes 3 channels, and the data have 4 .*'teacher.channels=\[0,1,2\]'"),
        (None, 1, r"takes 1 channel, and"),
        ([0, 1], 3, "names 2 channels, and the teacher takes 3"),
        ([0, 1, 4], 3, "give places of the data's 4 channels, 0 to 3"),
        ("rgb", 3, "give places of the data's 4 channels"),
        ([0, 1, True], 3, "give places"),
    ],
)
def test_channels_that_do_not_fit_are_told(channels: Any, own: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shown_channels(config(channels), own)
