"""A frozen network's launches on a GPU, recorded once and replayed: one launch in place of hundreds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from idd_seg.types import Outputs

SIZES = 2  # recorded; each holds the memory of all its maps. Whole photographs of other sizes are computed as ever
WARM_UP = 3  # calls before a recording, in which cuDNN and cuBLAS choose and allocate


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    image: Tensor
    outputs: Outputs


class Graphed(nn.Module):
    """Computes what `network` does. Its outputs are overwritten by the next call with an image of the same size.

    Args:
        network: in evaluation mode, without gradient; gives `Outputs`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.recordings: dict[tuple[object, ...], _Recording] = {}

    @property
    def channels(self) -> dict[str, int]:
        """Width of each feature map, by its name."""
        return self.network.channels  # type: ignore[return-value]

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) -> the network's outputs."""
        if not image.is_cuda or torch.is_grad_enabled():
            return self.network(image)  # type: ignore[no-any-return]
        key = (tuple(image.shape), image.stride(), image.dtype, torch.is_autocast_enabled("cuda"))
        if key not in self.recordings:
            if len(self.recordings) == SIZES:
                return self.network(image)  # type: ignore[no-any-return]
            self.recordings[key] = self._record(image)
        recording = self.recordings[key]
        recording.image.copy_(image)
        recording.graph.replay()
        return recording.outputs

    def _record(self, image: Tensor) -> _Recording:
        image = image.clone(memory_format=torch.preserve_format)
        # Weights that autocast has rounded would be freed with its cache, under the recording.
        cached = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self.network(image)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                outputs = self.network(image)
        finally:
            torch.set_autocast_cache_enabled(cached)
        return _Recording(graph, image, outputs)
