"""8-bit ONNX files by static quantisation, and what that costs in mIoU."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.errors import ConfigError, DataError
from idd_seg.exporting.onnx_file import IMAGE
from idd_seg.exporting.parity import Runner
from idd_seg.metrics.confusion import ConfusionMatrix, Scores, scores
from idd_seg.ops.validation import require_whole

# Layers in 8 bits: those whose kernels ONNX Runtime has in 8 bits, and what stands between them.
QUANTISED = ["Conv", "Add", "Relu", "MaxPool", "Concat", "MatMul"]


def quantise(source: Path, target: Path, pictures: Iterator[Tensor]) -> None:
    """Write the 8-bit form of an ONNX file: weights by channel, activations by the ranges seen on `pictures`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            picture = next(pictures, None)
            return None if picture is None else {IMAGE: picture.numpy()}

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises on the root logger to do what is done here
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTISED,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        root.setLevel(level)


def check(data: SegmentationDataModule, number: Any, split: str) -> None:
    """Refuse what can't be calibrated or judged.

    Raises:
        ConfigError: if `number` is not a whole number of at least 1, or there is no such split.
        DataError: if the pictures are not there, or the split has no labels.
    """
    require_whole("calibration.images", number, 1, error=ConfigError)
    if not data.labelled(split):
        raise DataError(f"data={data.name} has no labels for the split '{split}', on which mIoU would be measured")


def calibration_pictures(data: SegmentationDataModule, number: int, seed: int = 0) -> Iterator[Tensor]:
    """Yield pictures (1, C, H, W) of the training split, drawn at random, without augmentation."""
    source = data.dataset("train").source
    chosen = np.random.default_rng(seed).permutation(len(source))[:number]
    return (_tensor(source[int(i)].image) for i in track(chosen, description="calibrate"))


@torch.no_grad()
def judge(runner: Runner, data: SegmentationDataModule, split: str, title: str) -> Scores:
    """Return the scores of a function from pictures to logits, over a split.

    Raises:
        DataError: if the split has no labels.
    """
    source = data.dataset(split).source
    confusion = ConfusionMatrix(data.num_classes, data.ignore_index)
    for i in track(range(len(source)), description=title):
        item = source[i]
        if item.label is None:
            raise DataError(f"{item.name}: it has no label, so that mIoU can't be measured")
        label = torch.from_numpy(data.labels(item.label, item.name)).long()[None]
        confusion.update(runner(_tensor(item.image)), label)
    return scores(confusion.compute())


def _tensor(image: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
