"""How a network is shown a picture, against a literal reference; and the same counts in one process and in two."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn

from idd_seg.checkpoints.reader import Saved
from idd_seg.config.groups import config_dir
from idd_seg.config.instantiate import make_inference
from idd_seg.errors import ConfigError, UserError
from idd_seg.evaluation.inference import Inference
from idd_seg.evaluation.scoring import evaluate
from idd_seg.metrics.confusion import ConfusionMatrix
from idd_seg.ops.upsample import mean_logits, predict
from idd_seg.types import Outputs
from tests.data.sources import Coordinates, OneSource
from tests.data.sources import settings as data_settings
from tests.ops.test_upsample import assert_highest, slow_scores
from tests.ranks import ranks_of

K = 5


class Network(nn.Module):
    """Coarse logits, a quarter of the picture a side rounded up, whose values depend on pixels around."""

    def __init__(self, symmetric: bool = False, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, K, 4 if symmetric else 5, stride=4, padding=0 if symmetric else 2).double()
        if symmetric:
            self.conv.weight.data += self.conv.weight.data.flip(-1)
        self.seen: list[tuple[int, int]] = []

    def forward(self, image: Tensor) -> Outputs:
        self.seen.append((image.shape[-2], image.shape[-1]))
        return Outputs(4 * self.conv(image.double()), {})


def picture(height: int, width: int, n: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows begin: every stride, and where one would reach beyond the border it ends there instead."""
    if window >= length:
        return [0]
    starts = []
    place = 0
    while place + window < length:
        starts.append(place)
        place += stride
    starts.append(length - window)
    return starts


def slow_slide(
    network: nn.Module, image: Tensor, crop: tuple[int, int], stride: tuple[int, int], mirror: bool
) -> Tensor:
    """Return the mean over windows of logits (N, K, H, W) at the picture's own size."""
    n, _, height, width = image.shape
    total, count = torch.zeros(n, K, height, width, dtype=torch.float64), torch.zeros(height, width)
    for top in slow_starts(height, crop[0], stride[0]):
        for left in slow_starts(width, crop[1], stride[1]):
            bottom, right = min(height, top + crop[0]), min(width, left + crop[1])
            part = image[:, :, top:bottom, left:right]
            logits = network(part.flip(-1)).logits.flip(-1) if mirror else network(part).logits
            large = F.interpolate(logits, size=(bottom - top, right - left), mode="bilinear", align_corners=False)
            total[:, :, top:bottom, left:right] += large
            count[top:bottom, left:right] += 1
    assert (count > 0).all()
    return total / count


SLIDES: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "fits exactly": ((32, 48), (16, 16), (16, 16)),
    "overlap": ((37, 53), (16, 20), (11, 13)),
    "last window moved back": ((30, 41), (16, 16), (16, 16)),
    "stride 1 down": ((14, 30), (12, 16), (1, 10)),
    "higher window than the picture": ((13, 40), (20, 16), (14, 11)),
    "larger window than the picture": ((13, 17), (20, 24), (14, 16)),
    "window of the picture": ((24, 28), (24, 28), (16, 19)),
    "one pixel beyond": ((25, 29), (24, 28), (16, 19)),
}


@pytest.mark.parametrize("name", SLIDES)
@pytest.mark.parametrize("flip", [False, True])
@torch.no_grad()
def test_a_sliding_window_is_the_mean_of_its_windows(name: str, flip: bool) -> None:
    size, crop, stride = SLIDES[name]
    image, network = picture(*size), Network()
    views = Inference("slide", crop, stride, flip=flip).views(network, image, size)
    expected = [slow_slide(network, image, crop, stride, mirror) for mirror in ([False, True] if flip else [False])]
    assert len(views) == len(expected)
    for view, logits in zip(views, expected, strict=True):
        torch.testing.assert_close(mean_logits(view, size), logits, rtol=0, atol=1e-12)
    scores = torch.stack([logits.softmax(1) for logits in expected]).mean(0)
    assert_highest(predict(views, size), scores.numpy(), slack=1e-12)


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    crop=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_windows_cover_everything(size: tuple[int, int], crop: tuple[int, int], data: st.DataObject) -> None:
    stride = tuple(data.draw(st.integers(1, side)) for side in crop)
    windows = Inference("slide", crop, stride).windows(*size)
    seen = torch.zeros(size)
    for top, left, bottom, right in windows:
        assert 0 <= top < bottom <= size[0]
        assert 0 <= left < right <= size[1]
        assert (bottom - top, right - left) == (min(crop[0], size[0]), min(crop[1], size[1]))
        seen[top:bottom, left:right] += 1
    assert (seen > 0).all()
    assert len(set(windows)) == len(windows)
    assert max(window[2] for window in windows) == size[0]
    assert max(window[3] for window in windows) == size[1]
    expected = {
        (t, x) for t in slow_starts(size[0], crop[0], stride[0]) for x in slow_starts(size[1], crop[1], stride[1])
    }
    assert {window[:2] for window in windows} == expected


def test_the_stride_is_two_thirds_of_the_window_unless_told() -> None:
    assert Inference("slide", (9, 30)).as_dict()["stride"] == (6, 20)
    assert Inference("slide", (1, 2)).as_dict()["stride"] == (1, 1)
    starts = sorted({window[0] for window in Inference("slide", (9, 30)).windows(30, 30)})
    assert starts == [0, 6, 12, 18, 21]


def test_the_whole_picture_is_shown_once() -> None:
    network = Network()
    Inference().views(network, picture(20, 30), (20, 30))
    assert network.seen == [(20, 30)]


# Scales and mirror images


def slow_scales(network: nn.Module, image: Tensor, scales: list[float], flip: bool, size: tuple[int, int]) -> Tensor:
    """Return mean probabilities (N, K, H, W)."""
    total, count = torch.zeros(len(image), K, *size, dtype=torch.float64), 0
    for scale in scales:
        height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
        shown = F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)
        for mirror in (False, True) if flip else (False,):
            logits = network(shown.flip(3)).logits.flip(3) if mirror else network(shown).logits
            total += F.interpolate(logits, size=size, mode="bilinear", align_corners=False).softmax(1)
            count += 1
    return total / count


@pytest.mark.parametrize("size", [(24, 36), (48, 72), (12, 18)], ids=["of the picture", "twice", "half"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [[1.0], [0.5], [0.75, 1.0, 1.5], [0.3, 2]])
@torch.no_grad()
def test_scales_and_mirror_images_are_means_of_probabilities(
    scales: list[float], flip: bool, size: tuple[int, int]
) -> None:
    image, network = picture(24, 36), Network()
    views = Inference(scales=scales, flip=flip).views(network, image, size)
    assert len(views) == len(scales) * (1 + flip)
    expected = slow_scales(network, image, scales, flip, size)
    assert_highest(predict(views, size), expected.numpy(), slack=1e-12)


@torch.no_grad()
def test_all_at_once() -> None:
    size, crop, stride, scales = (26, 38), (16, 20), (9, 14), [0.75, 1.25]
    image, network = picture(13, 19), Network()
    views = Inference("slide", crop, stride, scales, flip=True).views(network, image, size)
    # Each view by itself: the windows of the scaled picture, spread over the larger one.
    expected = []
    for scale in scales:
        shown = F.interpolate(image, size=(round(13 * scale), round(19 * scale)), mode="bilinear", align_corners=False)
        for mirror in (False, True):
            down, across = size[0] / shown.shape[2], size[1] / shown.shape[3]
            patches = []
            for top in slow_starts(shown.shape[2], crop[0], stride[0]):
                for left in slow_starts(shown.shape[3], crop[1], stride[1]):
                    bottom, right = min(shown.shape[2], top + crop[0]), min(shown.shape[3], left + crop[1])
                    part = shown[:, :, top:bottom, left:right]
                    logits = network(part.flip(-1)).logits.flip(-1) if mirror else network(part).logits
                    patches.append((logits, (top * down, left * across, bottom * down, right * across)))
            expected.append(patches)
    assert [[patch.box for patch in view] for view in views] == [[box for _, box in patches] for patches in expected]
    for view, patches in zip(views, expected, strict=True):
        assert all(torch.equal(patch.logits, logits) for patch, (logits, _) in zip(view, patches, strict=True))
    assert_highest(predict(views, size), slow_scores([list(v) for v in views], size), slack=1e-12)


@torch.no_grad()
def test_a_network_that_knows_no_sides_gives_the_same_with_mirror_images() -> None:
    network, image, size = Network(symmetric=True), picture(24, 36), (24, 36)
    for options in ({}, {"scales": [1.0, 2.0]}, {"mode": "slide", "crop": (16, 20), "stride": (8, 16)}):
        plain, mirrored = (Inference(**options, flip=flip).views(network, image, size) for flip in (False, True))
        assert torch.equal(predict(plain, size), predict(mirrored, size))


def test_no_gradient_is_kept() -> None:
    views = Inference(scales=[1.0, 0.5], flip=True).views(Network(), picture(8, 8).requires_grad_(), (8, 8))
    assert not any(patch.logits.requires_grad for view in views for patch in view)


def test_the_picture_is_left_alone() -> None:
    image = picture(24, 36)
    before = image.clone()
    Inference("slide", (16, 16), scales=[0.5, 1.0], flip=True).views(Network(), image, (24, 36))
    assert torch.equal(image, before)


# Options


BAD: list[tuple[dict[str, Any], str]] = [
    ({"mode": "slides"}, "mode"),
    ({"mode": ""}, "mode"),
    ({"mode": "slide"}, "crop"),
    ({"mode": "slide", "crop": [0, 8]}, "crop"),
    ({"mode": "slide", "crop": [8]}, "crop"),
    ({"mode": "slide", "crop": [8, 8, 8]}, "crop"),
    ({"mode": "slide", "crop": [8.5, 8]}, "crop"),
    ({"mode": "slide", "crop": ["a", 8]}, "crop"),
    ({"mode": "slide", "crop": [-8, 8]}, "crop"),
    ({"mode": "slide", "crop": [8, 8], "stride": [9, 8]}, "stride"),
    ({"mode": "slide", "crop": [8, 8], "stride": [8, 9]}, "stride"),
    ({"mode": "slide", "crop": [8, 8], "stride": [0, 8]}, "stride"),
    ({"mode": "slide", "crop": [8, 8], "stride": [4]}, "stride"),
    ({"scales": []}, "scales"),
    ({"scales": [0]}, "scales"),
    ({"scales": [1.0, -1]}, "scales"),
    ({"scales": [float("nan")]}, "scales"),
    ({"scales": [float("inf")]}, "scales"),
    ({"scales": ["1.0"]}, "scales"),
    ({"scales": [None]}, "scales"),
]
# A single number for a list, a word for a truth value: what one types in haste.
HASTY: list[tuple[dict[str, Any], str]] = [
    ({"scales": 0.5}, "scales"),
    ({"mode": "slide", "crop": 512}, "crop"),
    ({"mode": "slide", "crop": [8, 8], "stride": 4}, "stride"),
    ({"flip": "no"}, "flip"),
    ({"flip": "false"}, "flip"),
]


@pytest.mark.parametrize(("options", "key"), BAD, ids=[str(options) for options, _ in BAD])
def test_an_option_out_of_range_is_refused(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"eval\.{key}"):
        Inference(**options)


@pytest.mark.parametrize(("options", "key"), HASTY, ids=[str(options) for options, _ in HASTY])
def test_an_option_of_another_kind_is_refused(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"eval\.{key}"):
        Inference(**options)


def node(**changes: Any) -> Any:
    return OmegaConf.merge(OmegaConf.load(config_dir() / "evaluate.yaml").eval, changes)


def saved(crop: list[int] | None) -> Saved:
    augment = None if crop is None else {"crop": crop}
    return Saved(Path("x.ckpt"), {}, {"config": {"data": {"augment": augment}}}, "")


def test_the_yaml_shows_the_whole_picture_once() -> None:
    found = make_inference(node(), saved([360, 480])).as_dict()
    assert found == {"mode": "whole", "crop": None, "stride": None, "scales": [1.0], "flip": False}


def test_the_window_is_the_training_crop_unless_told() -> None:
    assert make_inference(node(mode="slide"), saved([360, 480])).as_dict()["crop"] == (360, 480)
    assert make_inference(node(mode="slide"), saved([360, 480])).as_dict()["stride"] == (240, 320)
    assert make_inference(node(mode="slide", crop=[9, 12], stride=[3, 4]), saved([360, 480])).as_dict()["crop"] == (
        9,
        12,
    )
    with pytest.raises(ConfigError, match=r"eval\.crop=\[height,width\]"):
        make_inference(node(mode="slide"), saved(None))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"scales": 0.5}, "scales"),
        ({"crop": 512}, "crop"),
        ({"mode": "slide", "stride": 4}, "stride"),
        ({"flip": "no"}, "flip"),
    ],
)
def test_the_command_line_names_the_option(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"eval\.{key}"):
        make_inference(node(**changes), saved([8, 8]))


# One process and two


INFERENCES: dict[str, dict[str, Any]] = {
    "whole": {},
    "slide, scales, mirror": {"mode": "slide", "crop": (16, 24), "scales": [0.5, 1.0], "flip": True},
}
IMAGES = 7


class Float(Network):
    def forward(self, image: Tensor) -> Outputs:
        return Outputs(super().forward(image).logits.float(), {})


def counts() -> dict[str, Any]:
    """Return the counts over this process's share, put together, and the scores that a user sees."""
    data = OneSource(
        Coordinates(20, 30, length=IMAGES),
        **data_settings(K, label_values={v: v % K for v in range(30)}, eval_batch_size=1),
    )
    network, found = Float(), {}
    for name, options in INFERENCES.items():
        matrix, inference, seen = ConfusionMatrix(K), Inference(**options), 0
        for batch in data.loader("val"):
            batch = data.on_after_batch_transfer(batch, 0)
            matrix.update(inference.views(network, batch.image, batch.label.shape[-2:]), batch.label)
            seen += len(batch.names)
        scored = evaluate(network, data, "val", torch.device("cpu"), inference=inference)
        found[name] = {
            "counts": matrix.compute().clone(),
            "seen": seen,
            "scores": [scored.miou, scored.accuracy, *scored.iou],
        }
    return found


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        torch.save(counts(), Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("world")
    ranks_of(work, str(folder))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", INFERENCES)
def test_two_processes_count_what_one_counts(name: str, ranks: list[dict[str, Any]]) -> None:
    alone = counts()[name]
    assert alone["seen"] == IMAGES
    assert [rank[name]["seen"] for rank in ranks] == [4, 3]
    assert alone["counts"].sum() == IMAGES * 20 * 30
    for rank in ranks:
        assert torch.equal(rank[name]["counts"], alone["counts"])
        assert rank[name]["scores"] == alone["scores"]


def test_windows_are_enlarged_with_their_strides() -> None:
    larger = Inference("slide", (9, 30), (3, 30), [0.5, 1.0], flip=True).enlarged(2)
    assert larger.as_dict() == {
        "mode": "slide",
        "crop": (18, 60),
        "stride": (6, 60),
        "scales": [0.5, 1.0],
        "flip": True,
    }
    assert Inference("slide", (3, 4)).enlarged(0.1).as_dict()["crop"] == (1, 1)
    assert Inference().enlarged(2).crop is None
