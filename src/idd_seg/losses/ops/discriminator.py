"""A small network that tells a teacher's predictions from a student's, and its steps."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from idd_seg.losses.ops.grid import masked_mean
from idd_seg.ops.precision import Widening
from idd_seg.ops.validation import require_whole

# Under the root of a squared gradient, so that the root's own gradient stays finite at zero.
EPSILON = 1e-12


class _Convolution(nn.Conv2d):
    """A convolution in the precision of its input, whatever that of its weights."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        result: Tensor = self._conv_forward(input, self.weight.to(input.dtype), bias)
        return result


class Discriminator(Widening):
    """Scores predictions, given the image: three 3 x 3 convolutions of stride 2 and a 1 x 1 one, LeakyReLU between.

    Fully convolutional: any grid, 1 x 1 too, has at least one score. Nothing in it depends on the other images of a
    batch, as BatchNorm would, so that real and fake maps, and the images of several processes, are scored alike.

    Args:
        num_classes: channels K of the predictions.
        width: channels of the first convolution; the next two have twice and four times as many.
        spectral: divide the weights by their largest singular value. The estimate of it (buffers, saved with the
            weights) moves in training mode alone.

    Raises:
        ValueError: if num_classes or width is below 1.
    """

    def __init__(self, num_classes: int, width: int = 64, spectral: bool = True) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("width", width)):
            require_whole(name, value, 1)
        layers: list[nn.Module] = []
        for before, after in pairwise([num_classes + 3, width, 2 * width, 4 * width]):
            layers += [_Convolution(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        layers.append(_Convolution(4 * width, 1, 1))
        if spectral:
            layers = [spectral_norm(x) if isinstance(x, _Convolution) else x for x in layers]
        self.layers = nn.Sequential(*layers)

    def forward(self, predictions: Tensor, image: Tensor) -> Tensor:
        """Score predictions (N, K, h, w) of images (N, 3, h, w): (N, 1, ceil(h / 8), ceil(w / 8))."""
        return self.layers(torch.cat([predictions, image], dim=1))  # type: ignore[no-any-return]


def _both_scores(network: nn.Module, real: Tensor, fake: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Score both in one pass, so that the estimates of singular values are the same for both."""
    theirs, ours = network(torch.cat([real, fake]), torch.cat([image, image])).chunk(2)
    return theirs, ours


def hinge_loss(network: nn.Module, real: Tensor, fake: Tensor, image: Tensor, counted: Tensor) -> Tensor:
    r"""Mean over scores of :math:`\max(0, 1 - D(t)) + \max(0, 1 + D(s))`; J. H. Lim and J. C. Ye, 2017.

    Args:
        network: D, from maps and images to scores (N, 1, h', w').
        real, fake: the teacher's and the student's predictions (N, K, h, w).
        image: (N, 3, h, w).
        counted: (N, 1, 1, 1) bool, images that take part.
    """
    theirs, ours = _both_scores(network, real, fake, image)
    return masked_mean(F.relu(1 - theirs), counted) + masked_mean(F.relu(1 + ours), counted)


def wasserstein_loss(
    network: nn.Module, real: Tensor, fake: Tensor, image: Tensor, counted: Tensor, penalty: float
) -> Tensor:
    r"""Mean of :math:`D(s) - D(t)` plus `penalty` times the mean of `gradient_penalty`; see `hinge_loss` for the rest.

    I. Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017. The penalty is taken at a random point
    between the two predictions of each image.
    """
    theirs, ours = _both_scores(network, real, fake, image)
    share = torch.rand(len(real), 1, 1, 1, dtype=real.dtype, device=real.device)
    slopes = gradient_penalty(network, fake.lerp(real, share), image)
    return masked_mean(ours - theirs, counted) + penalty * masked_mean(slopes, counted)


def gradient_penalty(network: nn.Module, predictions: Tensor, image: Tensor) -> Tensor:
    r"""Squared distance of D's slope from 1, (N, 1, 1, 1), differentiable with respect to the weights.

    .. math:: \Big(\sqrt{h w \, \lVert \nabla_x \bar D(x) \rVert_2^2 + \epsilon} - 1\Big)^2

    where :math:`\bar D` is the mean score of an image. The factor h w makes the slope one per root mean square
    difference over the positions: the size of scores does not depend on that of the map.
    """
    point = predictions.detach().requires_grad_()
    # Images do not meet in D: the gradient of the sum holds the gradient of each.
    score = network(point, image).mean((1, 2, 3)).sum()
    (slope,) = torch.autograd.grad(score, point, create_graph=True)
    positions = point.shape[-2] * point.shape[-1]
    squared = positions * slope.square().sum((1, 2, 3), keepdim=True)
    return ((squared + EPSILON).sqrt() - 1).square()


def frozen_discriminator(
    num_classes: int, width: int, spectral: bool, lr: float
) -> tuple[Discriminator, torch.optim.Optimizer]:
    """Build a discriminator whose weights only `own_step` moves, with its Adam, without momentum as GANs use it."""
    network = Discriminator(num_classes, width, spectral).requires_grad_(False).eval()
    return network, torch.optim.Adam(network.parameters(), lr=lr, betas=(0.0, 0.9))
