"""Terms as they are often written: a loop over images and classes, with masks of full size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.grid import nearest_labels


def class_distances_by_loops(student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """`inter_class_distance` with scope `image`, raw edges: a boolean mask for each image and class."""
    labels = nearest_labels(labels, student.shape[-2:])
    total = student.new_zeros(())
    for image in range(len(labels)):
        means_s, means_t = [], []
        for k in range(num_classes):
            mask = labels[image] == k
            if mask.any():
                means_s.append(student[image][:, mask].mean(1))
                means_t.append(teacher[image][:, mask].mean(1))
        edges_s, edges_t = F.pdist(torch.stack(means_s)), F.pdist(torch.stack(means_t))
        total = total + (edges_s - edges_t).square().mean()
    return total / len(labels)


def intra_class_variation_by_loops(student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """`intra_class_variation` with a mask (N, C, h, w) for each class."""
    labels = nearest_labels(labels, student.shape[-2:])[:, None]
    centres_s, centres_t = student.clone(), teacher.clone()
    for k in range(num_classes):
        mask = (labels == k).to(student.dtype).expand_as(student)
        pixels = mask.sum((2, 3), keepdim=True) + 1e-6
        mean_s = (mask * student).sum((2, 3), keepdim=True) / pixels
        mean_t = (mask * teacher).sum((2, 3), keepdim=True) / pixels
        centres_s = (1 - mask) * centres_s + mask * mean_s
        centres_t = (1 - mask) * centres_t + mask * mean_t
    similarity_s = F.cosine_similarity(student, centres_s, dim=1)
    similarity_t = F.cosine_similarity(teacher, centres_t, dim=1)
    return (similarity_s - similarity_t).square().mean()
