"""Wide 3 x 3 convolutions by Winograd's products: a quarter of the multiplications, for ONNX Runtime on CPUs.

A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016: F(4 x 4, 3 x 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Tiles of 4 x 4 results from 6 x 6 values: result = A (G g G' * B d B') A', with the matrices transposed here.
TILE, INSIDE = 4, 6
_INPUT = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_KERNEL = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
# Of narrower layers the transformations cost as much as they save.
LEAST_WIDTH, LEAST_KERNELS = 128, 2**16


class WinogradConv(nn.Module):
    """A 3 x 3 convolution of stride 1 whose padding keeps the size.

    The kernels are transformed where they are used: a runtime does so once, when it loads the file, which stays small.

    Args:
        weight: (O, C, 3, 3).
        bias: (O,).
        dilation: of both sides.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.kernel_matrix: Tensor
        self.input_matrix: Tensor
        self.output_matrix: Tensor
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", bias.detach().view(1, -1, 1, 1).clone())
        for name, matrix in (("kernel_matrix", _KERNEL), ("input_matrix", _INPUT), ("output_matrix", _OUTPUT)):
            self.register_buffer(name, torch.tensor(matrix, dtype=torch.float32))

    def _products(self) -> Tensor:
        """Return the transformed kernels, (36, 1, O, C)."""
        kernel = self.kernel_matrix
        whole = torch.matmul(torch.matmul(kernel, self.weight), kernel.t())
        return whole.permute(3, 2, 0, 1).reshape(INSIDE * INSIDE, 1, *self.weight.shape[:2])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, O, h, w)."""
        number, channels, height, width = x.shape
        step = TILE * self.dilation
        down, across = (height + step - 1) // step, (width + step - 1) // step
        d = self.dilation
        x = F.pad(x, (d, d + across * step - width, d, d + down * step - height))
        # Pixels that a dilated kernel sees together stand `dilation` apart: one grid for each remainder.
        x = x.reshape(number, channels, TILE * down + 2, d, TILE * across + 2, d)
        x = self._tiles(x, 2, down)  # (6 rows, N, C, down, d, columns, d)
        x = self._tiles(x, 5, across)  # (6 columns, 6 rows, N, C, down, d, across, d)
        x = x.reshape(INSIDE * INSIDE, number, channels, down * d * across * d)
        x = torch.matmul(self._products(), x)
        outputs = x.shape[2]
        x = torch.matmul(self.output_matrix, x.reshape(INSIDE, -1))
        x = torch.matmul(self.output_matrix, x.reshape(TILE, INSIDE, -1))
        x = x.reshape(TILE, TILE, number, outputs, down, d, across, d).permute(2, 3, 4, 1, 5, 6, 0, 7)
        x = x.reshape(number, outputs, down * step, across * step)[:, :, :height, :width]
        return x + self.bias

    def _tiles(self, x: Tensor, side: int, tiles: int) -> Tensor:
        """Cut overlapping tiles of 6 along a side, and transform them: the 6 values come to the front."""
        end = TILE * tiles
        parts = [x.transpose(0, side)[k : k + end - TILE + 1 : TILE].transpose(0, side) for k in range(INSIDE)]
        stacked = torch.stack(parts)
        return torch.matmul(self.input_matrix, stacked.reshape(INSIDE, -1)).reshape(stacked.shape)


def by_winograd(model: Any) -> int:
    """Replace the wide 3 x 3 convolutions of an ONNX model, in place; return their number."""
    from onnx import numpy_helper

    graph = model.graph
    weights = {value.name: value for value in graph.initializer}
    nodes, replaced = [], 0
    for node in graph.node:
        shape = tuple(weights[node.input[1]].dims) if node.op_type == "Conv" and node.input[1] in weights else ()
        dilation = _dilation(node, shape)
        if dilation is None:
            nodes.append(node)
            continue
        arrays = [torch.from_numpy(numpy_helper.to_array(weights[name]).copy()) for name in node.input[1:]]
        bias = arrays[1] if len(arrays) > 1 else torch.zeros(shape[0])
        part = _part(WinogradConv(arrays[0], bias, dilation), f"winograd_{replaced}/", node.input[0], node.output[0])
        nodes += part.node
        graph.initializer.extend(part.initializer)
        replaced += 1
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [value for value in graph.initializer if value.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return replaced


def _dilation(node: Any, shape: Sequence[int]) -> int | None:
    """Return the dilation of a layer that can be replaced and gains by it, else None."""
    if tuple(shape[2:]) != (3, 3) or min(shape[:2]) < LEAST_WIDTH or shape[0] * shape[1] < LEAST_KERNELS:
        return None
    found = {attribute.name: list(attribute.ints) or attribute.i for attribute in node.attribute}
    dilations = found.get("dilations", [1, 1])
    same = found.get("pads") == [dilations[0]] * 4 and dilations[0] == dilations[1]
    plain = found.get("strides", [1, 1]) == [1, 1] and found.get("group", 1) == 1
    return int(dilations[0]) if same and plain else None


def _part(layer: WinogradConv, prefix: str, source: str, target: str) -> Any:
    """Return the layer's graph, of any size, between two names of the whole one's."""
    from onnx import compose

    example = torch.zeros(2, layer.weight.shape[1], 12, 20)
    sides = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.onnx.export(
        layer.eval(),
        (example,),
        dynamo=True,
        dynamic_shapes=(sides,),
        input_names=["x"],
        output_names=["y"],
        verbose=False,
    )
    assert program is not None
    graph = compose.add_prefix(program.model_proto, prefix).graph
    names = {graph.input[0].name: source, graph.output[0].name: target}
    for node in graph.node:
        for place in (node.input, node.output):
            place[:] = [names.get(name, name) for name in place]
    return graph
