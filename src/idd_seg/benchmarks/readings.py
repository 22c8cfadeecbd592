"""Losses written straight from their definitions: a loop over classes, maps of full size, one step after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.losses.ops.grid import nearest_labels


@dataclass(frozen=True)
class Scene:
    """What both networks give, and the labels.

    Attributes:
        student, teacher: features (N, C, h, w).
        student_logits, teacher_logits: (N, K, h, w).
        labels: (N, H, W).
    """

    student: Tensor
    teacher: Tensor
    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor


def generator(width: int) -> nn.Sequential:
    """Two 3 x 3 convolutions."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1)
    )


def kl(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Divergence of softmaxes, summed."""
    return F.kl_div(F.log_softmax(student, dim), F.softmax(teacher, dim), reduction="sum")


class MaskedGenerationReading(nn.Module):
    """`mgd`: a map with holes through the generator, summed squares."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.generate = generator(width)

    def generated(self, scene: Scene) -> Tensor:
        n, _, h, w = scene.student.shape
        kept = torch.where(torch.rand(n, 1, h, w, device=scene.student.device) > 0.25, 0, 1)
        made: Tensor = self.generate(torch.mul(scene.student, kept))
        return made

    def forward(self, scene: Scene) -> Tensor:
        return F.mse_loss(self.generated(scene), scene.teacher, reduction="sum") / len(scene.student)


class DenseContrastReading(MaskedGenerationReading):
    """`afdcd`: the same, and tables of distances from which positives and negatives are taken by masks."""

    def forward(self, scene: Scene) -> Tensor:
        made, groups, patch = self.generated(scene), 16, 4
        regression = F.mse_loss(made, scene.teacher, reduction="sum") / len(made)
        ours, theirs = (self.parts(F.max_pool2d(x, 4), groups, patch) for x in (made, scene.teacher))
        similarity = -torch.cdist(ours, theirs, p=1)
        count = patch * patch * groups
        group = torch.arange(count, device=made.device) % groups
        own = torch.eye(count, dtype=torch.bool, device=made.device).repeat(len(ours), 1, 1)
        others = (group[:, None] != group).repeat(len(ours), 1, 1)
        rows = len(ours) * count
        logits = torch.cat([similarity[own].view(rows, 1), similarity[others].view(rows, -1)], 1) / 0.07
        return regression + F.cross_entropy(logits, torch.zeros(rows, dtype=torch.long, device=made.device))

    @staticmethod
    def parts(x: Tensor, groups: int, patch: int) -> Tensor:
        n, c, h, w = x.shape
        x = x.view(n, groups, c // groups, h // patch, patch, w // patch, patch).permute(0, 3, 5, 4, 6, 1, 2)
        return x.reshape(-1, patch * patch * groups, c // groups)


class AttentionReading(nn.Module):
    """`attnfd`: CBAM on both sides, 1 x 1 convolution and BatchNorm, lengths over the batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.attention(width) for _ in range(2))
        self.connector = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))

    @staticmethod
    def attention(width: int) -> nn.ModuleList:
        squeeze = nn.Sequential(nn.Flatten(), nn.Linear(width, width // 16), nn.ReLU(), nn.Linear(width // 16, width))
        return nn.ModuleList([squeeze, nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1)])

    @staticmethod
    def refined(layers: nn.Module, x: Tensor) -> Tensor:
        squeeze, conv, norm = layers.children()
        size = x.shape[2:]
        channels = squeeze(F.avg_pool2d(x, size)) + squeeze(F.max_pool2d(x, size))
        x = x * torch.sigmoid(channels)[..., None, None].expand_as(x)
        pooled = torch.cat([x.max(1)[0][:, None], x.mean(1)[:, None]], 1)
        return x * torch.sigmoid(norm(conv(pooled)))

    def forward(self, scene: Scene) -> Tensor:
        ours = self.connector(self.refined(self.layers[0], scene.student))
        with torch.no_grad():
            theirs = self.refined(self.layers[1], scene.teacher)
        apart: Tensor = (ours / torch.norm(ours) - theirs / torch.norm(theirs)).pow(2).sum()
        return apart / len(ours)


class PixelToCentreReading(nn.Module):
    """`apd`: a mask, and the vectors that it picks, for each class."""

    def forward(self, scene: Scene) -> Tensor:
        labels = nearest_labels(scene.labels, scene.student.shape[-2:])
        shares = []
        for x in (scene.student, scene.teacher):
            x = F.normalize(x, 2, 1)
            centres = []
            for k in torch.unique(labels).tolist():
                if k == 255:
                    continue
                at = (labels == k).float().nonzero()
                centres.append(F.normalize(x[at[:, 0], :, at[:, 1], at[:, 2]].mean(0)[None], 2, 1))
            shares.append(10 * F.conv2d(x, torch.cat(centres)[..., None, None]))
        return kl(shares[0], shares[1], 1) / shares[0].numel()


class CrossRelationReading(nn.Module):
    """`rmrkd` without its generation: four masked maps and eight maps of cosines for each class."""

    def forward(self, scene: Scene) -> Tensor:
        labels = nearest_labels(scene.labels, scene.student.shape[-2:])[:, None]
        total = scene.student.new_zeros(())
        for k in range(scene.student_logits.shape[1]):
            if not (labels == k).any():
                continue
            inside, outside = (labels == k).float(), (labels != k).float()
            count = inside.sum((2, 3)) + 1e-6
            means = [(inside * x).sum((2, 3)) / count for x in (scene.student, scene.teacher)]
            for mean in means:
                for mask in (inside, outside):
                    ours = F.cosine_similarity(mean[..., None, None], mask * scene.student, dim=1).flatten(1)
                    theirs = F.cosine_similarity(mean[..., None, None].detach(), mask * scene.teacher, dim=1).flatten(1)
                    total = total + kl(ours / 0.1, theirs / 0.1, 1) * (0.01 / 4)
        return total + self.channels(scene, labels)

    @staticmethod
    def channels(scene: Scene, labels: Tensor) -> Tensor:
        total = scene.student_logits.new_zeros(())
        n, classes = scene.student_logits.shape[:2]
        inside = torch.cat([(labels == k).float() for k in range(classes)], 1)
        for mask in (inside, 1 - inside):
            ours, theirs = ((mask * x).flatten(2) / 4 for x in (scene.student_logits, scene.teacher_logits))
            total = total + kl(ours, theirs, 2) * 4 * 16 / (n * classes)
        return total


class BoundaryReading(nn.Module):
    """`bpkd`: a mask of the picture's size for each class, dilated and eroded."""

    def forward(self, scene: Scene) -> Tensor:
        n, classes, h, w = scene.student_logits.shape
        known = scene.labels != 255
        mask = F.one_hot(torch.where(known, scene.labels, 0), classes).permute(0, 3, 1, 2).float() * known[:, None]
        edges = F.max_pool2d(mask, 7, 1, 3) - (1 - F.max_pool2d(1 - mask, 7, 1, 3))
        edges = F.adaptive_avg_pool2d(edges * known[:, None], (h, w))
        ours, theirs = scene.student_logits, scene.teacher_logits
        apart = F.kl_div(F.log_softmax(ours * edges, 1), F.softmax(theirs * edges, 1), reduction="none").sum(1)[:, None]
        edge = ((apart * edges).sum((2, 3)) / edges.sum((2, 3)).clamp(min=1)).sum(1).mean()
        body = kl((ours * (1 - edges)).flatten(2), (theirs * (1 - edges)).flatten(2), 2) / (n * classes)
        return 50 * edge + 20 * body


@dataclass(frozen=True)
class Reading:
    """One loss as it is read, and how the term beside it is set.

    Attributes:
        make: from the width of the features.
        bar: how many times as long it should take; None where the authors' program, which is the measure, does more.
        classes: numbers of classes that it is measured with.
        options: of the term, where it does more by default.
    """

    make: Callable[[int], nn.Module]
    bar: float | None
    classes: tuple[int, ...] = (19, 150)
    options: Mapping[str, object] | None = None


READINGS: dict[str, Reading] = {
    "mgd": Reading(MaskedGenerationReading, bar=1, classes=(19,)),
    "afdcd": Reading(DenseContrastReading, bar=1, classes=(19,)),
    "attnfd": Reading(AttentionReading, bar=1, classes=(19,), options={"taps": ["head"]}),
    # The authors' program also compares all vectors of a class with each other, which nothing reads, and takes longer.
    "apd": Reading(lambda _: PixelToCentreReading(), bar=None),
    # For 150 classes it would hold some 15 GB.
    "rmrkd": Reading(lambda _: CrossRelationReading(), bar=5, classes=(19,), options={"generation_weight": 0.0}),
    "bpkd": Reading(lambda _: BoundaryReading(), bar=1),
}
