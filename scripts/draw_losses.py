"""What each term looks at: `python scripts/draw_losses.py OUT.png twin=FOLDER idd=FOLDER cwd=FOLDER ...`.

Draws a row a term: what the term compares, in the teacher, in a student trained without it (`twin`), and in the student
of its run. The folders are run folders of idd_seg.train on one data set; the teacher is the one that they name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.config.restore import data_from, student_from
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.losses.class_mass import log_masses
from idd_seg.losses.idd import class_means
from idd_seg.losses.ops.class_distances import distance_matrix
from idd_seg.losses.ops.grid import nearest_labels
from idd_seg.losses.ops.position_probe import fit_step, frozen_reader
from idd_seg.losses.ops.spatial_distributions import blurred, spatial_softmax
from idd_seg.models.segmenter import Segmenter
from idd_seg.plotting.figures import figure, save
from idd_seg.types import Batch, Outputs

SCENES = 16  # of the batch; the first one is shown
PROBE_STEPS = 100
Draw = Callable[[Outputs, Batch, SegmentationDataModule], Tensor]


def head(outputs: Outputs) -> Tensor:
    """The features (N, C, h, w) before the classifier."""
    return outputs.features["head"]


def truth_probability(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """ce: probability of the true class."""
    labels = nearest_labels(batch.label, outputs.logits.shape[-2:]).clamp(max=data.num_classes - 1)
    return outputs.logits.softmax(1).gather(1, labels[:, None])[0, 0]


def confidence(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """kd: probability of the likeliest class."""
    return outputs.logits.softmax(1).amax(1)[0]


def distances(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """idd: distances between the classes, relative to their mean."""
    means, _ = class_means(head(outputs), batch.label, data.num_classes, scope="batch")
    edges = distance_matrix(means)[0]
    return edges / edges[edges > 0].mean()


def reading(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """position: horizontal position as a reader of its own reads it."""
    torch.manual_seed(0)
    features = head(outputs)
    reader, optimizer = frozen_reader(features.shape[1], ["horizontal", "vertical"], 1, 0, 0.01)
    truth, valid = reader.truth(batch.box, (features.shape[-2], features.shape[-1]))
    for _ in range(PROBE_STEPS):
        fit_step(reader, optimizer, features, truth, valid)
    return reader(features)[0, 0]


def place(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """class_position: where one class lies, blurred as on its coarsest scale."""
    return blurred(spatial_softmax(outputs.logits, 4.0), 0.15)[0, data.class_names.index("wire")]


def mass(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """class_mass: where the probability of one class lies, blurred as on the term's coarsest scale."""
    return blurred(log_masses(outputs.logits).exp(), 0.15)[0, data.class_names.index("wire")]


def affinities(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """pairwise: similarities of the parts of the scene to each other."""
    nodes = F.normalize(F.max_pool2d(head(outputs), 2).flatten(2)[0], dim=0)
    return nodes.T @ nodes


def blended(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """adversarial: the class probabilities that the discriminator sees, as a mixture of the classes' colours."""
    palette = torch.tensor(data.palette).float() / 255
    return torch.einsum("khw,kc->hwc", outputs.logits.softmax(1)[0], palette)


def own_class(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """ifvd: similarity of each position to the mean of its class."""
    labels = nearest_labels(batch.label, head(outputs).shape[-2:]).clamp(max=data.num_classes - 1)
    means, _ = class_means(head(outputs), batch.label, data.num_classes)
    return F.cosine_similarity(head(outputs)[0], means[0].T[:, labels[0]], dim=0)


def wire(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """cwd: where the channel of one class looks."""
    channel = outputs.logits[0, data.class_names.index("wire")]
    return (channel.flatten() / 4).softmax(0).view_as(channel)


def across(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """cirkd: how much the centre of the next scene looks like each position of this one."""
    features = F.normalize(head(outputs), dim=1)
    _, _, h, w = features.shape
    return (
        (torch.einsum("c,chw->hw", features[1, :, h // 2, w // 2], features[0]) / 0.1).flatten().softmax(0).view(h, w)
    )


def to_regions(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """cirkd_memory: similarity of each position to the classes' regions in other scenes: to those of its own class."""
    labels = nearest_labels(batch.label, head(outputs).shape[-2:]).clamp(max=data.num_classes - 1)
    rest = class_means(head(outputs)[1:], batch.label[1:], data.num_classes, scope="batch")[0][0]
    similarity = torch.einsum("kc,chw->khw", F.normalize(rest, dim=1), F.normalize(head(outputs)[0], dim=0))
    return (similarity / 0.1).softmax(0).gather(0, labels[:1])[0]


def entropy(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """dist: spread of the probabilities over the classes, whose pattern must go with the teacher's."""
    log = outputs.logits.log_softmax(1)[0]
    return -(log.exp() * log).sum(0)


def attention(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """at: strength of the features."""
    return F.normalize(head(outputs).square().mean(1).flatten(1), dim=1).view_as(head(outputs)[:, 0])[0]


def components(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """fitnet: the features themselves, their three principal components as colours."""
    features = head(outputs)
    rows = features.permute(0, 2, 3, 1).flatten(0, 2)
    centred = rows - rows.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    shown = (centred @ directions[:3].T).view(len(features), *features.shape[-2:], 3)[0]
    low, high = shown.flatten(0, 1).quantile(0.02, dim=0), shown.flatten(0, 1).quantile(0.98, dim=0)
    return ((shown - low) / (high - low)).clamp(0, 1)


TERMS: dict[str, Draw] = {
    "ce": truth_probability,
    "kd": confidence,
    "idd": distances,
    "position": reading,
    "class_position": place,
    "class_mass": mass,
    "pairwise": affinities,
    "adversarial": blended,
    "ifvd": own_class,
    "cwd": wire,
    "cirkd": across,
    "cirkd_memory": to_regions,
    "dist": entropy,
    "at": attention,
    "fitnet": components,
}


def main(arguments: list[str]) -> None:
    """Draw the rows of `TERM=FOLDER` arguments."""
    folders = dict(argument.partition("=")[::2] for argument in arguments[1:])
    if not folders or "twin" not in folders or not set(folders) - {"twin"} <= set(TERMS):
        sys.exit(__doc__)
    saved = {name: read_checkpoint(f"{folder}/checkpoints/last.ckpt") for name, folder in folders.items()}
    teachers = [one.card["teacher"]["path"] for one in saved.values() if one.card.get("teacher")]
    if not teachers:
        sys.exit("error: none of the runs names a teacher")
    networks: dict[str, Segmenter] = {"teacher": student_from(read_checkpoint(teachers[0]))}
    networks |= {name: student_from(one) for name, one in saved.items()}
    data = data_from(saved["twin"], None, num_workers=0, eval_batch_size=SCENES)
    batch = data.on_device(next(iter(data.val_dataloader())), torch.device("cpu"))
    with torch.no_grad():
        outputs = {name: network(batch.image) for name, network in networks.items()}
    rows = [name for name in folders if name != "twin"]
    fig = figure(6.6, 2.05 * len(rows) + 0.3)
    axes = fig.subplots(len(rows), 3, squeeze=False)
    for i, name in enumerate(rows):
        columns = {"teacher": "teacher", "twin": "student without", name: "student with"}
        maps = [TERMS[name](outputs[column], batch, data).detach() for column in columns]
        top = max(float(x.max()) for x in maps)
        low = min(float(x.min()) for x in maps)
        for axis, x, title in zip(axes[i], maps, columns.values(), strict=True):
            axis.imshow(x.numpy(), vmin=low, vmax=top, cmap="viridis", interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if i == 0:
                axis.set_title(title, fontsize=9)
        axes[i][0].set_ylabel(name, fontsize=9)
    fig.subplots_adjust(left=0.06, right=0.99, bottom=0.01, top=1 - 0.3 / (2.05 * len(rows)), wspace=0.04, hspace=0.06)
    print(save(fig, Path(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
