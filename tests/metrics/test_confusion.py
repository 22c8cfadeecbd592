"""Scores: values worked out by hand, a slow reference, and what takes no part."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.evaluation.probes import near_confusion, near_pairs
from idd_seg.metrics.confusion import ConfusionMatrix, scores
from idd_seg.metrics.rank_correlation import ranks, spearman


def certain(predicted: Tensor, num_classes: int) -> Tensor:
    """Return logits (N, K, H, W) whose largest value is at the predicted class."""
    return F.one_hot(predicted, num_classes).movedim(-1, 1).float()


def confusion_of(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    matrix = ConfusionMatrix(num_classes)
    matrix.update(certain(predicted, num_classes), labels)
    return matrix.compute()


def slow_confusion(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for p, t in zip(predicted.flatten().tolist(), labels.flatten().tolist(), strict=True):
        if t != 255:
            counts[t, p] += 1
    return counts


def test_scores_worked_out_by_hand() -> None:
    # Rows truth, columns prediction. Class 0: 3 hits, 1 missed, 2 wrongly claimed. Class 3 never occurs.
    confusion = torch.tensor([[3, 1, 0, 0], [2, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    confusion[2, 1] = 5  # class 2 occurs and is never found
    found = scores(confusion)
    assert found.iou[:3] == pytest.approx([3 / 6, 4 / 12, 0.0])
    assert math.isnan(found.iou[3])
    assert found.miou == pytest.approx((3 / 6 + 4 / 12 + 0) / 3)
    assert found.accuracy == pytest.approx(7 / 15)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    found = scores(torch.tensor([[2, 2], [0, 0]]))
    assert found.iou == pytest.approx([0.5, 0.0])
    assert found.miou == pytest.approx(0.25)


def test_an_absent_class_is_null_in_json() -> None:
    plain = scores(torch.tensor([[4, 0], [0, 0]])).as_dict(["ground", "spark"])
    assert json.loads(json.dumps(plain, allow_nan=False)) == {
        "miou": 1.0,
        "pixel_accuracy": 1.0,
        "iou": {"ground": 1.0, "spark": None},
    }


def test_scores_of_no_pixels_are_still_json() -> None:
    json.dumps(scores(torch.zeros(2, 2, dtype=torch.int64)).as_dict(["ground", "spark"]), allow_nan=False)


@pytest.mark.parametrize("num_classes", [2, 11, 150])
def test_counts_equal_a_slow_reference(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    predicted = torch.randint(0, num_classes, (3, 17, 13), generator=generator)
    labels = torch.randint(0, num_classes, (3, 17, 13), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    assert torch.equal(confusion_of(predicted, labels, num_classes), slow_confusion(predicted, labels, num_classes))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_the_integer_type_of_labels_changes_nothing(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 21, (2, 9, 9), generator=generator)
    labels[0, :3] = 255
    predicted = torch.randint(0, 21, (2, 9, 9), generator=generator)
    assert torch.equal(confusion_of(predicted, labels.to(dtype), 21), confusion_of(predicted, labels, 21))


@pytest.mark.parametrize("ignore_index", [255, -1])
def test_ignored_pixels_are_not_counted(ignore_index: int) -> None:
    matrix = ConfusionMatrix(3, ignore_index)
    matrix.update(certain(torch.tensor([[[0, 1, 2]]]), 3), torch.tensor([[[0, ignore_index, ignore_index]]]))
    assert matrix.compute().tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_it_is_one_matrix_over_the_data_set_not_a_mean_over_images() -> None:
    images = [
        (torch.tensor([[[0, 0, 0, 0]]]), torch.tensor([[[0, 0, 0, 1]]])),
        (torch.tensor([[[1, 1, 1, 1]]]), torch.tensor([[[1, 1, 0, 0]]])),
    ]
    matrix = ConfusionMatrix(2)
    for predicted, labels in images:
        matrix.update(certain(predicted, 2), labels)
    of_each = [scores(confusion_of(p, t, 2)).miou for p, t in images]
    # Data set: class 0 3 / 6, class 1 2 / 5. Images: (3/4 + 0) / 2 and (0 + 2/4) / 2.
    assert scores(matrix.compute()).miou == pytest.approx((3 / 6 + 2 / 5) / 2)
    assert sum(of_each) / 2 == pytest.approx((3 / 8 + 1 / 4) / 2)


def test_the_order_and_the_cut_of_batches_change_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(6, 4, 5, 5, generator=generator), torch.randint(0, 4, (6, 5, 5), generator=generator)
    whole, parts = ConfusionMatrix(4), ConfusionMatrix(4)
    whole.update(logits, labels)
    for part in ([5], [0, 3, 1], [2, 4]):
        parts.update(logits[part], labels[part])
    assert torch.equal(whole.compute(), parts.compute())


def test_logits_are_brought_to_the_size_of_the_labels() -> None:
    generator = torch.Generator().manual_seed(2)
    logits, labels = torch.randn(2, 3, 4, 5, generator=generator), torch.randint(0, 3, (2, 13, 21), generator=generator)
    matrix = ConfusionMatrix(3)
    matrix.update(logits, labels)
    large = F.interpolate(logits, size=(13, 21), mode="bilinear", align_corners=False)
    assert torch.equal(matrix.compute(), slow_confusion(large.argmax(1), labels, 3))
    assert matrix.compute().sum() == labels.numel()


def test_reset_starts_anew() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(certain(torch.tensor([[[0]]]), 2), torch.tensor([[[1]]]))
    matrix.reset()
    matrix.update(certain(torch.tensor([[[1]]]), 2), torch.tensor([[[1]]]))
    assert matrix.compute().tolist() == [[0, 0], [0, 1]]


def test_equal_values_share_their_mean_rank() -> None:
    assert ranks(torch.tensor([[3.0, 1.0, 3.0, 2.0]])).tolist() == [[2.5, 0.0, 2.5, 1.0]]


@pytest.mark.parametrize(
    ("b", "expected"),
    [
        ([1.0, 8.0, 27.0, 64.0], 1.0),  # any rising curve
        ([4.0, 3.0, 2.0, -9.0], -1.0),
        ([1.0, 2.0, 4.0, 3.0], 0.8),  # 1 - 6 * (1 + 1) / (4 * 15)
        ([1.0, 1.0, 2.0, 2.0], 2 / math.sqrt(5)),  # ranks 0.5 0.5 2.5 2.5: 4 / sqrt(5 * 4)
        ([7.0, 7.0, 7.0, 7.0], 0.0),
    ],
)
def test_spearman_worked_out_by_hand(b: list[float], expected: float) -> None:
    assert float(spearman(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor(b))) == pytest.approx(expected)


def test_spearman_takes_each_row_by_itself() -> None:
    rising = torch.arange(4.0).expand(2, 4)
    assert spearman(rising, torch.stack([rising[0], -rising[0]])).tolist() == pytest.approx([1.0, -1.0])


def test_near_pairs_are_those_at_the_smallest_distances() -> None:
    nan = float("nan")
    distances = torch.tensor([[0, 1, 5, nan], [1, 0, 2, nan], [5, 2, 0, nan], [nan, nan, nan, nan]])
    assert near_pairs(distances, 0.34) == [(0, 1)]
    assert near_pairs(distances, 0.67) == [(0, 1), (1, 2)]
    assert near_pairs(distances, 0.0) == [(0, 1)]


def test_near_confusion_is_the_share_of_both_classes_that_is_taken_for_the_other() -> None:
    confusion = torch.tensor([[80, 10, 10], [5, 85, 10], [0, 0, 0]])
    assert near_confusion(confusion, [(0, 1)]) == pytest.approx(15 / 200)
    assert near_confusion(confusion, [(0, 1), (0, 2)]) == pytest.approx((15 / 200 + 10 / 100) / 2)
    assert math.isnan(near_confusion(torch.zeros(2, 2), [(0, 1)]))
