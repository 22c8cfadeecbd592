"""Networks of other than three channels, and teachers that are shown some of the data's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

import idd_seg
from idd_seg.checkpoints.data_card import DataCard
from idd_seg.checkpoints.reader import Saved
from idd_seg.config.instantiate import make_data
from idd_seg.config.option_roles import is_as_before
from idd_seg.config.teacher import load_teacher
from idd_seg.config.teacher_channels import normalisation, shown_channels
from idd_seg.config.teacher_file import as_trained
from idd_seg.config.teacher_plan import cache_key, named_checkpoint, teacher_config
from idd_seg.errors import CheckpointError, ConfigError, DataError
from idd_seg.models.backbone import Backbone, adapted
from idd_seg.models.freeze import freeze
from idd_seg.models.heads.fcn import FCNHead
from idd_seg.models.mit import FIRST, MixTransformer
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.teacher import FrozenTeacher
from tests.data.layouts import compose
from tests.shipping import SMALL as SHAPES
from tests.shipping import save_run

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


PLANES = ("data.channels=4", "data.bits=16", "data.mean=[0.1,0.2,0.3,0.4]", "data.std=[0.5,0.6,0.7,0.8]")


def test_a_checkpoint_of_rgb_teaches_students_of_four_channels(tmp_path: Path) -> None:
    """The network that a name describes has as many channels as the data; the file says how many it has."""
    path = save_run(tmp_path, "student=small")
    cfg = compose(*SHAPES, *PLANES, "teacher=medium", "teacher.model=${student}", f"teacher.checkpoint={path}")
    data = make_data(cfg)
    with pytest.raises(ConfigError, match="takes 3 channels, and the data have 4"):
        load_teacher(str(path), cfg, data)
    cfg.teacher.channels = [0, 1, 2]
    teacher = load_teacher(str(path), cfg, data)
    assert (teacher.inputs, teacher.in_channels) == ([0, 1, 2], 3)
    picture = torch.randint(0, 65536, (1, 4, 32, 32)).to(torch.uint16)
    found = teacher(data.normalise(picture)).logits
    alone = idd_seg.load(path, "cpu")
    card = alone.card
    unit = picture[:, :3].float() / 65535
    own = (unit - torch.tensor(card.mean).view(-1, 1, 1)) / torch.tensor(card.std).view(-1, 1, 1)
    with torch.no_grad():
        assert torch.allclose(found, alone.network(own).logits, atol=1e-3)


def test_a_checkpoint_says_channels_and_bits(tmp_path: Path) -> None:
    path = save_run(tmp_path, "student=small", *PLANES)
    model = idd_seg.load(path, "cpu")
    assert str(model.card.pixels) == "4 channels of 16 bits"
    assert {key: model.card.as_dict()[key] for key in ("channels", "bits")} == {"channels": 4, "bits": 16}
    picture = np.random.default_rng(0).integers(0, 65536, (32, 40, 4)).astype(np.uint16)
    assert model.predict(picture).shape == (32, 40)
    image = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None]
    data = make_data(compose(*SHAPES, *PLANES))
    assert torch.allclose(model.normalise(image), data.normalise(image), atol=1e-6)
    with pytest.raises(DataError, match="uint16"):
        model.predict(picture.astype(np.uint8))


@pytest.mark.parametrize(("key", "value"), [("channels", 0), ("channels", "4"), ("bits", 12), ("mean", [0.5] * 3)])
def test_a_checkpoint_with_odd_channels_is_refused(key: str, value: Any) -> None:
    data = {"name": "x", "class_names": ["a", "b"], "palette": [[0, 0, 0]] * 2, "mean": [0.5] * 4, "std": [0.5] * 4}
    saved = Saved(Path("x.ckpt"), {}, {"config": {"data": {**data, "channels": 4, "bits": 16, key: value}}}, "")
    with pytest.raises(CheckpointError, match=f"data.{key} is"):
        DataCard.of(saved)


def test_a_teacher_that_is_trained_by_the_way_sees_all_channels() -> None:
    cfg = compose(*SHAPES, *PLANES, "teacher.checkpoint=auto", "teacher.channels=[0,1,2]")
    with pytest.raises(ConfigError, match=r"trains a teacher of all channels; leave teacher.channels out"):
        named_checkpoint(cfg)


def test_new_options_change_no_key_of_before() -> None:
    """Kept teachers and runs of before are found by their options, without those that are new."""
    cfg = compose(*SHAPES, "teacher=medium", "teacher.checkpoint=auto")
    own = teacher_config(cfg)
    key = cache_key(own)
    del own.data.channels, own.data.bits, own.student.in_channels
    assert cache_key(own) == key
    assert cache_key(teacher_config(compose(*SHAPES, *PLANES, "teacher=medium", "teacher.checkpoint=auto"))) != key
    assert is_as_before("teacher.channels", None)
    assert not is_as_before("student.in_channels", 4)
