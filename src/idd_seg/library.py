"""A trained student in somebody's program: `model = idd_seg.load(path); mask = model.predict(image)`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from idd_seg.checkpoints.data_card import DataCard, Normalise
from idd_seg.checkpoints.exported_folder import SavedFolder, read_beside, read_saved
from idd_seg.checkpoints.reader import Saved
from idd_seg.config import restore
from idd_seg.data.augment import cut, whole
from idd_seg.data.pipeline.source import Raster, UInt8
from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.evaluation.device import pick_device
from idd_seg.evaluation.inference import Inference
from idd_seg.evaluation.picture_input import Picture, as_picture
from idd_seg.evaluation.sliding_window import class_chunks, confident_chunks
from idd_seg.models.segmenter import Segmenter
from idd_seg.ops.validation import require_choice
from idd_seg.runtimes.network import ENDINGS, FileNetwork, session_of
from idd_seg.runtimes.openvino_session import Precision

ClassIds: TypeAlias = NDArray[Any]

# Larger pictures than this, in pixels that the network sees, are shown through windows of this size.
WHOLE_LIMIT = 2**22
WINDOW = (1024, 1024)
NO_CLASS = 255  # of a pixel whose class is not certain enough


class Confident(NamedTuple):
    """Class ids (H, W) uint8, `NO_CLASS` where no class is probable enough.

    Attributes:
        certainty: mean over the pixels of the probability of the likeliest class, 0 to 1.
        share: of the pixels that have a class.
    """

    ids: UInt8
    certainty: float
    share: float


class Model:
    """A student that predicts.

    Args:
        network: of `card`'s classes.
        saved: what it was read from.
        whole_limit: pixels that the network sees at once; larger pictures are shown through windows.

    Attributes:
        class_names, palette: K names, and K RGB colours 0 to 255.
        network: the PyTorch module, in evaluation mode on `device`; takes normalised images.
        normalise: (N, C, H, W) RGB 0 to 255, or of `card.pixels` -> what `network` takes.
    """

    def __init__(self, network: Segmenter, saved: Saved, device: torch.device, whole_limit: int = WHOLE_LIMIT) -> None:
        self.saved = saved
        card = DataCard.of(saved)
        if network.num_classes != len(card.class_names):
            raise CheckpointError(
                f"'{saved.path}': the network has {network.num_classes} classes, its data {len(card.class_names)}"
            )
        self._set(network, card, device, whole_limit)

    def _set(self, network: Any, card: DataCard, device: torch.device, whole_limit: int) -> None:
        self.card, self.device, self.whole_limit = card, device, whole_limit
        self.network: Segmenter = network.eval().to(device)
        self.normalise: nn.Module = Normalise(self.card).to(device)

    @property
    def class_names(self) -> list[str]:
        return self.card.class_names

    @property
    def palette(self) -> list[tuple[int, int, int]]:
        return self.card.palette

    def predict(self, image: Picture | Sequence[Picture], inference: Inference | None = None) -> Any:
        """Return the class ids of a picture, (H, W) uint8 (uint16 for more than 256 classes), or a list of a list's.

        Args:
            image: a file's path, a PIL image, an array (H, W, 3) or (H, W) uint8 RGB, or a tensor (3, H, W), uint8 or
                float 0 to 1; or a list of such, which may differ in size. Of a network of other channels or bits:
                arrays (H, W, C) and tensors (C, H, W) of these, uint16 where it has 16 bits.
            inference: windows, scales, mirror images; the whole picture at once by default, and windows where it is
                larger than `whole_limit`.

        Raises:
            DataError: for a file that can't be read, or an array of another kind.
        """
        if isinstance(image, list | tuple):
            return self._predict_list([as_picture(one, self.card.pixels) for one in image], inference)
        return self._predict_list([as_picture(image, self.card.pixels)], inference)[0]  # type: ignore[arg-type]

    def _predict_list(self, pictures: list[Raster], inference: Inference | None) -> list[ClassIds]:
        """Predict pictures of equal size together."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, picture in enumerate(pictures):
            by_size.setdefault(picture.shape, []).append(place)
        found: list[ClassIds] = [np.empty(0)] * len(pictures)
        for places in by_size.values():
            for place, ids in zip(places, self.show([pictures[p] for p in places], inference), strict=True):
                found[place] = ids
        return found

    @torch.inference_mode()
    def show(self, pictures: Sequence[Raster], inference: Inference | None = None) -> ClassIds:
        """Return the class ids (N, H, W) of N pictures (H, W, C) of one size, shown together."""
        image, size = self._stacked(pictures)
        ids = np.empty((len(pictures), *size), np.uint8 if len(self.class_names) <= 256 else np.uint16)
        chosen = self.inference_for(image.shape[2], image.shape[3], inference)
        for top, rows in class_chunks(chosen, self.network, image, size, self._prepare):
            ids[:, top : top + rows.shape[1]] = rows.cpu().numpy()
        return ids

    @torch.inference_mode()
    def show_confident(
        self, pictures: Sequence[Raster], confidence: float, inference: Inference | None = None
    ) -> list[Confident]:
        """Return the class ids of N pictures (H, W, C) of one size where their probability is at least `confidence`.

        Raises:
            ConfigError: for more than 255 classes: 255 stands for no class.
        """
        if len(self.class_names) > NO_CLASS:
            raise ConfigError(f"{len(self.class_names)} classes and {NO_CLASS} for none don't fit into 8 bits")
        image, size = self._stacked(pictures)
        ids = np.empty((len(pictures), *size), np.uint8)
        sums = torch.zeros(len(pictures), dtype=torch.float64)
        chosen = self.inference_for(image.shape[2], image.shape[3], inference)
        for top, rows, probability in confident_chunks(chosen, self.network, image, size, self._prepare):
            taken = torch.where(probability >= confidence, rows, NO_CLASS).to(torch.uint8)
            ids[:, top : top + rows.shape[1]] = taken.cpu().numpy()
            sums += probability.sum((1, 2)).double().cpu()
        return [
            Confident(one, float(total) / one.size, float((one != NO_CLASS).mean()))
            for one, total in zip(ids, sums, strict=True)
        ]

    def _stacked(self, pictures: Sequence[Raster]) -> tuple[Tensor, tuple[int, int]]:
        """Return pictures of one size as (N, C, h, w), as large as the network sees them, and their own size."""
        size = (pictures[0].shape[0], pictures[0].shape[1])
        window = whole(*size, self.card.image_scale)
        scaled = [cut(picture, window, cv2.INTER_LINEAR) for picture in pictures]
        # A picture alone is not copied: it may be large.
        stack = scaled[0][None] if len(scaled) == 1 else np.stack(scaled)
        return torch.from_numpy(stack).permute(0, 3, 1, 2), size

    def _prepare(self, part: Tensor) -> Tensor:
        prepared: Tensor = self.normalise(part.to(self.device))
        return prepared

    def inference_for(self, height: int, width: int, inference: Inference | None) -> Inference:
        """Return how a picture of this size is shown: through windows if it is too large to be shown whole."""
        chosen = inference or Inference()
        largest = height * width * max(chosen.scales) ** 2
        if chosen.mode == "slide" or largest <= self.whole_limit:
            return chosen
        return Inference("slide", WINDOW, scales=chosen.scales, flip=chosen.flip)

    def colour(self, mask: ClassIds) -> UInt8:
        """(H, W) class ids -> (H, W, 3) RGB; what is no class is white."""
        table = np.full((2**16, 3), 255, np.uint8)
        table[: len(self.palette)] = np.array(self.palette, np.uint8)
        return table[np.asarray(mask).astype(np.uint16)]


class FileModel(Model):
    """A student in a file of another runtime, which scales and normalises by itself, on the CPU."""

    def __init__(self, saved: SavedFolder, precision: Precision = "float32") -> None:
        self.saved = saved
        card = DataCard.of(saved)
        network = FileNetwork(saved.path, session_of(saved.path, precision), len(card.class_names), card.pixels)
        self.image_scale = card.image_scale
        self._set(network, replace(card, image_scale=1.0), torch.device("cpu"), WHOLE_LIMIT)
        self.normalise = nn.Identity()

    def inference_for(self, height: int, width: int, inference: Inference | None) -> Inference:
        """Return how a picture is shown: windows are given in the network's pixels, and cut from the file's."""
        # Those that are chosen here stay as they are: a file's logits are of full size, and larger windows cost memory.
        given = None if inference is None else inference.enlarged(1 / self.image_scale)
        return super().inference_for(height, width, given)


def load(path: str | os.PathLike[str], device: str = "auto", precision: Precision = "float32") -> Model:
    """Load a student from a checkpoint, an exported folder, or a file of a runtime in such a folder.

    Nothing in the files is executed as a program.

    Args:
        device: `auto` takes a GPU where there is one; files of runtimes (.onnx, .xml) are run on the CPU.
        precision: of an OpenVINO file; bfloat16 is for CPUs that have it.

    Raises:
        CheckpointError: if what lies there is missing, damaged, hostile, or not of this program.
        ConfigError: if the device or the precision can't be used here.
        UserError: if the runtime of the file is not installed.
    """
    require_choice("precision", precision, get_args(Precision), error=ConfigError)
    if (file := Path(path).expanduser()).suffix in ENDINGS:
        if device not in ("auto", "cpu"):
            raise ConfigError(f"device={device}: '{file.name}' is run on the CPU; device=cpu, or load the checkpoint")
        return FileModel(read_beside(file), precision)
    if precision != "float32":
        raise ConfigError(f"precision={precision} is of OpenVINO's files (.xml), and this is '{file}'")
    saved = read_saved(os.fspath(path))
    target = str(saved.config("student").get("_target_"))
    if not target.startswith("idd_seg.models."):
        raise CheckpointError(f"'{saved.path}': its student would be '{target}', which is no network of this program")
    return Model(restore.student_from(saved), saved, pick_device(device))
