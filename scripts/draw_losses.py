"""What each term looks at: `python scripts/draw_losses.py OUT.png RUNS`.

RUNS holds a run folder `twin` (loss=ce) and one for each term, named after it (loss=[ce,TERM]), of one data set and
teacher. Draws a row a term: what it compares, in the teacher, in the student trained without it, and in its own run's.
The terms are those of conf/loss; each has a function here, which is named after it. A term without a run is left out,
and said.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.config.groups import options_of
from idd_seg.config.restore import data_from, student_from
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.losses.class_mass import log_masses
from idd_seg.losses.idd import class_means
from idd_seg.losses.ops.class_distances import distance_matrix
from idd_seg.losses.ops.class_edges import class_edges
from idd_seg.losses.ops.grid import nearest_labels
from idd_seg.losses.ops.overlaps import class_overlaps
from idd_seg.losses.ops.position_probe import fit_step, frozen_probe
from idd_seg.losses.ops.spatial_distributions import blurred, spatial_softmax
from idd_seg.models.segmenter import Segmenter
from idd_seg.plotting.figures import figure, save
from idd_seg.types import Batch, Outputs

SCENES = 16  # of the batch; the first one is shown
PROBE_STEPS = 100
COLUMNS = ("teacher", "student without", "student with")
Draw = Callable[[Outputs, Batch, SegmentationDataModule], Tensor]


def head(outputs: Outputs) -> Tensor:
    """The features (N, C, h, w) before the classifier."""
    return outputs.features["head"]


def show_ce(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Probability of the true class."""
    labels = nearest_labels(batch.label, outputs.logits.shape[-2:]).clamp(max=data.num_classes - 1)
    return outputs.logits.softmax(1).gather(1, labels[:, None])[0, 0]


def show_dice(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Overlap of each pixel's class with the labels of the whole batch, 0 to 1."""
    overlap, mass, counted = class_overlaps(outputs.logits, batch.label, data.ignore_index)
    found = 2 * overlap / (mass + counted).clamp(min=1)
    labels = nearest_labels(batch.label, outputs.logits.shape[-2:])[0]
    return found[labels.clamp(max=data.num_classes - 1)]


def show_kd(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Probability of the likeliest class."""
    return outputs.logits.softmax(1).amax(1)[0]


def show_idd(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Distances between the classes, relative to their mean."""
    means, _ = class_means(head(outputs), batch.label, data.num_classes, scope="batch")
    edges = distance_matrix(means)[0]
    return edges / edges[edges > 0].mean()


def show_position(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Horizontal position as a probe of its own reads it."""
    torch.manual_seed(0)
    features = head(outputs)
    reader, optimizer = frozen_probe(features.shape[1], ["horizontal", "vertical"], 1, 0, 0.01)
    truth, valid = reader.truth(batch.box, (features.shape[-2], features.shape[-1]))
    for _ in range(PROBE_STEPS):
        fit_step(reader, optimizer, features, truth, valid)
    return reader(features)[0, 0]


def show_class_position(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Where one class lies, blurred as on its coarsest scale."""
    return blurred(spatial_softmax(outputs.logits, 4.0), 0.15)[0, data.class_names.index("wire")]


def show_class_mass(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Where the probability of one class lies, blurred as on the term's coarsest scale."""
    return blurred(log_masses(outputs.logits).exp(), 0.15)[0, data.class_names.index("wire")]


def show_pairwise(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Similarities of the parts of the scene to each other."""
    nodes = F.normalize(F.max_pool2d(head(outputs), 2).flatten(2)[0], dim=0)
    return nodes.T @ nodes


def show_adversarial(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """The class probabilities that the discriminator sees, as a mixture of the classes' colours."""
    palette = torch.tensor(data.palette).float() / 255
    return torch.einsum("khw,kc->hwc", outputs.logits.softmax(1)[0], palette)


def show_ifvd(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Similarity of each position to the mean of its class."""
    labels = nearest_labels(batch.label, head(outputs).shape[-2:]).clamp(max=data.num_classes - 1)
    means, _ = class_means(head(outputs), batch.label, data.num_classes)
    return F.cosine_similarity(head(outputs)[0], means[0].T[:, labels[0]], dim=0)


def show_cwd(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Where the channel of one class looks."""
    channel = outputs.logits[0, data.class_names.index("wire")]
    return (channel.flatten() / 4).softmax(0).view_as(channel)


def show_cirkd(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """How much the centre of the next scene looks like each position of this one."""
    features = F.normalize(head(outputs), dim=1)
    _, _, h, w = features.shape
    return (
        (torch.einsum("c,chw->hw", features[1, :, h // 2, w // 2], features[0]) / 0.1).flatten().softmax(0).view(h, w)
    )


def show_cirkd_memory(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Similarity of each position to the classes' regions in other scenes: to those of its own class."""
    labels = nearest_labels(batch.label, head(outputs).shape[-2:]).clamp(max=data.num_classes - 1)
    rest = class_means(head(outputs)[1:], batch.label[1:], data.num_classes, scope="batch")[0][0]
    similarity = torch.einsum("kc,chw->khw", F.normalize(rest, dim=1), F.normalize(head(outputs)[0], dim=0))
    return (similarity / 0.1).softmax(0).gather(0, labels[:1])[0]


def show_dist(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Spread of the probabilities over the classes, whose pattern must go with the teacher's."""
    log = outputs.logits.log_softmax(1)[0]
    return -(log.exp() * log).sum(0)


def show_at(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Strength of the features."""
    return F.normalize(head(outputs).square().mean(1).flatten(1), dim=1).view_as(head(outputs)[:, 0])[0]


def show_fitnet(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """The features themselves, their three principal components as colours."""
    features = head(outputs)
    rows = features.permute(0, 2, 3, 1).flatten(0, 2)
    centred = rows - rows.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    shown = (centred @ directions[:3].T).view(len(features), *features.shape[-2:], 3)[0]
    low, high = shown.flatten(0, 1).quantile(0.02, dim=0), shown.flatten(0, 1).quantile(0.98, dim=0)
    return ((shown - low) / (high - low)).clamp(0, 1)


def stage4(outputs: Outputs) -> Tensor:
    """The features (N, C, h, w) of the backbone's last stage."""
    return outputs.features["stage4"]


def show_mgd(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Strength of the last stage's features."""
    return F.normalize(stage4(outputs)[0].square().mean(0).flatten(), dim=0).view_as(stage4(outputs)[0, 0])


def show_afdcd(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Which of 16 groups of channels is the strongest."""
    parts = stage4(outputs)[0].tensor_split(16)
    return torch.stack([part.square().mean(0) for part in parts]).argmax(0).float()


def show_attnfd(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Weights of the positions, as an attention without parameters gives them."""
    features = F.normalize(head(outputs)[0].flatten(), dim=0).view_as(head(outputs)[0])
    return (features.amax(0) + features.mean(0)) / features.amax()


def show_apd(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Similarity of each position to the classes' centres in the batch: to that of its own class."""
    labels = nearest_labels(batch.label, head(outputs).shape[-2:]).clamp(max=data.num_classes - 1)
    units = F.normalize(head(outputs), dim=1)
    centres = F.normalize(class_means(units, batch.label, data.num_classes, scope="batch")[0][0], dim=1)
    return (torch.einsum("kc,chw->khw", centres, units[0]) / 0.1).softmax(0).gather(0, labels[:1])[0]


def show_rmrkd(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Similarity of each position to the mean of one class in the scene."""
    means, _ = class_means(stage4(outputs), batch.label, data.num_classes)
    prototype = means[0, data.class_names.index("ground")]
    return F.cosine_similarity(stage4(outputs)[0], prototype[:, None, None], dim=0)


def show_bpkd(outputs: Outputs, batch: Batch, data: SegmentationDataModule) -> Tensor:
    """Probability of the true class, at the edges of classes."""
    size = outputs.logits.shape[-2:]
    labels = nearest_labels(batch.label, size).clamp(max=data.num_classes - 1)
    edges = class_edges(batch.label, data.num_classes, size, width=7)[0].amax(0)
    return edges * outputs.logits.softmax(1).gather(1, labels[:, None])[0, 0]


def drawings() -> dict[str, Draw]:
    """Return the function of each term of conf/loss, in the order of this file.

    Raises:
        KeyError: if a term has none.
    """
    found = {name.removeprefix("show_"): draw for name, draw in globals().items() if name.startswith("show_")}
    if missing := sorted(set(options_of("loss")) - set(found)):
        raise KeyError(f"nothing shows {', '.join(missing)}: write show_TERM in {__file__}")
    return {name: draw for name, draw in found.items() if name in options_of("loss")}


def networks_of(runs: Path, names: list[str]) -> tuple[dict[str, Segmenter], SegmentationDataModule]:
    """Return the students of the runs, their teacher, and their data."""
    saved = {name: read_checkpoint(str(runs / name / "checkpoints" / "last.ckpt")) for name in names}
    teachers = [one.metadata["teacher"]["path"] for one in saved.values() if one.metadata.get("teacher")]
    if not teachers:
        sys.exit("error: none of the runs names a teacher")
    networks: dict[str, Segmenter] = {"teacher": student_from(read_checkpoint(teachers[0]))}
    networks |= {name: student_from(one) for name, one in saved.items()}
    return networks, data_from(saved["twin"], None, num_workers=0, eval_batch_size=SCENES)


def row(axes: Sequence[Axes], name: str, maps: Sequence[Tensor]) -> None:
    """Draw the maps of one term in one scale."""
    low, top = min(float(x.min()) for x in maps), max(float(x.max()) for x in maps)
    for axis, x in zip(axes, maps, strict=True):
        axis.axis("on")
        axis.imshow(x.numpy(), vmin=low, vmax=top, cmap="viridis", interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].set_ylabel(name, fontsize=9)


def main(arguments: list[str]) -> None:
    """Draw a row for each term that has a run."""
    if len(arguments) != 2 or not (Path(arguments[1]) / "twin").is_dir():
        sys.exit(__doc__)
    out, runs = map(Path, arguments)
    terms = drawings()
    shown = [name for name in terms if (runs / name / "checkpoints" / "last.ckpt").is_file()]
    if left_out := [name for name in terms if name not in shown]:
        print(f"without a run: {', '.join(left_out)}")
    networks, data = networks_of(runs, ["twin", *shown])
    batch = data.on_device(next(iter(data.val_dataloader())), torch.device("cpu"))
    with torch.no_grad():
        outputs = {name: network(batch.image) for name, network in networks.items()}
    count = math.ceil(len(shown) / 2)
    fig = figure(13.8, 2.05 * count + 0.3)
    axes = fig.subplots(count, 7, squeeze=False, width_ratios=[1, 1, 1, 0.14, 1, 1, 1])
    for axis in axes.flat:
        axis.axis("off")
    for i, name in enumerate(shown):
        start = 4 * (i % 2)
        maps = [terms[name](outputs[network], batch, data).detach() for network in ("teacher", "twin", name)]
        row(axes[i // 2][start : start + 3], name, maps)
    for start in (0, 4):
        for axis, title in zip(axes[0][start:], COLUMNS, strict=False):
            axis.set_title(title, fontsize=9)
    fig.subplots_adjust(left=0.025, right=0.995, bottom=0.01, top=1 - 0.3 / (2.05 * count), wspace=0.06, hspace=0.06)
    print(save(fig, out))


if __name__ == "__main__":
    main(sys.argv[1:])
