"""ONNX files in ONNX Runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from idd_seg.errors import CheckpointError, UserError, first_line

IMAGE, LOGITS = "image", "logits"


class OnnxSession:
    """An ONNX file of `idd_seg.export` in ONNX Runtime, on the CPU.

    Args:
        threads: of one operation; None takes as many as PyTorch does.
        output: what the file gives.

    Raises:
        UserError: without the package.
        CheckpointError: if the file can't be read.
    """

    def __init__(self, path: Path, threads: int | None = None, output: str = LOGITS) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise UserError(f"'{path}' needs onnxruntime: pip install 'idd-seg[onnx]'")
        import onnxruntime

        self.path, self.output = path, output
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no base but this
            raise CheckpointError(f"'{path}' can't be read by ONNX Runtime: {first_line(error)}") from error

    def __call__(self, image: Tensor) -> Tensor:
        """(N, C, H, W) as the file takes them -> (N, K, H, W) logits, or what else the file gives.

        Raises:
            CheckpointError: if the file takes or gives something else.
        """
        try:
            return torch.from_numpy(self.session.run([self.output], {IMAGE: image.numpy()})[0])
        except Exception as error:  # as above
            raise CheckpointError(f"'{self.path}' can't be run by ONNX Runtime: {first_line(error)}") from error
