"""One network, run in several ways: PyTorch, compiled, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idd_seg.config.instantiate import make
from idd_seg.errors import first_line
from idd_seg.exporting import int8_openvino
from idd_seg.ops.quiet import quiet
from idd_seg.runtimes.openvino_session import OpenVinoSession

Call = Callable[[], object]
IMAGE = "image"


class NotHereError(Exception):
    """A way that this machine, or this network, does not allow; the message says why."""


class Logits(nn.Module):
    """A network's logits alone: what a product needs of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) float, normalised -> (N, K, h, w)."""
        return self.network(image).logits  # type: ignore[no-any-return]


def eager(network: nn.Module, image: Tensor, small: bool) -> Call:
    """PyTorch, as `evaluate` runs it."""
    return _without_gradient(Logits(network).eval(), image)


def compiled(network: nn.Module, image: Tensor, small: bool) -> Call:
    """`torch.compile` for this size, after its first call.

    Raises:
        NotHereError: without a working compiler.
    """
    call = _without_gradient(torch.compile(Logits(network).eval(), dynamic=False), image)
    try:
        with quiet("torch._inductor", "torch._dynamo", "torch.utils.cpp_extension"):
            call()
    except Exception as error:  # each missing part of a compiler has an error of its own
        raise NotHereError(f"torch.compile does not work here: {first_line(error)}") from error
    return call


def onnx(network: nn.Module, image: Tensor, small: bool) -> Call:
    """ONNX Runtime, from a file written for this size; on a GPU if its build has one.

    Raises:
        NotHereError: without the packages or, for a GPU, without its provider; or if the network can't be written.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise NotHereError(f"{', '.join(missing)} not installed: pip install 'idd-seg[onnx]'")
    import onnxruntime

    provider = "CUDAExecutionProvider" if image.is_cuda else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise NotHereError("this build of ONNX Runtime has no GPU: pip install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # What the runtime would keep for its next call could not be told from what one call takes.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = not small
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        _write(network, image, path)
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    shown = {IMAGE: image.cpu().numpy()}
    if image.is_cuda:
        binding = session.io_binding()
        binding.bind_ortvalue_input(IMAGE, onnxruntime.OrtValue.ortvalue_from_numpy(shown[IMAGE], "cuda"))
        binding.bind_output(session.get_outputs()[0].name, "cuda")
        return lambda: session.run_with_iobinding(binding)
    return lambda: session.run(None, shown)


def openvino(network: nn.Module, image: Tensor, small: bool) -> Call:
    """OpenVINO in float32, from a file written for this size.

    Raises:
        NotHereError: without the packages, on a GPU, or if the network can't be written.
    """
    return _in_openvino(network, image, "openvino")


def openvino_int8(network: nn.Module, image: Tensor, small: bool) -> Call:
    """OpenVINO with layers in 8 bits. The ranges are those of noise: for the speed alone.

    Raises:
        NotHereError: as `openvino`.
    """
    return _in_openvino(network, image, "openvino", "nncf")


def _in_openvino(network: nn.Module, image: Tensor, *packages: str) -> Call:
    missing = [name for name in ("onnx", "onnxscript", *packages) if importlib.util.find_spec(name) is None]
    if missing:
        raise NotHereError(f"{', '.join(missing)} not installed: pip install 'idd-seg[openvino]'")
    if image.is_cuda:
        raise NotHereError("OpenVINO is measured on CPUs: device=cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        _write(network, image, path)
        if "nncf" in packages:
            source, path = path, Path(folder) / "network_int8.xml"
            int8_openvino.quantise(source, path, [image])
        session = OpenVinoSession(path)
    return lambda: session(image)


WAYS: Mapping[str, Callable[[nn.Module, Tensor, bool], Call]] = {
    "eager": eager,
    "compiled": compiled,
    "onnx": onnx,
    "openvino": openvino,
    "openvino_int8": openvino_int8,
}


def picture(size: Sequence[int], batch: int, device: torch.device) -> Tensor:
    """Return noise (batch, 3, *size), the same at every call."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)


def alone(node: dict[str, Any], way: str, size: Sequence[int], batch: int) -> Call:
    """Build a network of a configuration in a process of its own, and return a call to measure the memory of."""
    logging.disable(logging.WARNING)  # what is to be said was said by the process that asked
    call = WAYS[way](make(node, "network").eval(), picture(size, batch, torch.device("cpu")), True)
    call()  # what only the first call needs is not part of it
    return call


def _without_gradient(network: Callable[[Tensor], Tensor], image: Tensor) -> Call:
    def call() -> Tensor:
        with torch.inference_mode():
            return network(image)

    return call


def _write(network: nn.Module, image: Tensor, path: Path) -> None:
    try:
        with quiet("torch.onnx", "onnxscript", "onnx_ir"), torch.no_grad():
            program = torch.onnx.export(
                Logits(network).eval(), (image,), dynamo=True, input_names=[IMAGE], verbose=False
            )
            if program is None:
                raise NotHereError("PyTorch could not write the network as ONNX")
            program.save(str(path))
    except RuntimeError as error:
        raise NotHereError(f"PyTorch could not write the network as ONNX: {first_line(error)}") from error
