"""Sums and cosines by class, in every layout and by every way, against plain loops."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.idd import inter_class_distance
from idd_seg.losses.ops import cells as cells_module
from idd_seg.losses.ops import class_cosines as cosines_module
from idd_seg.losses.ops import class_products as products_module
from idd_seg.losses.ops import class_sums as sums_module
from idd_seg.losses.ops.cells import Cells, cells_of, columns_for
from idd_seg.losses.ops.class_cosines import class_cosines
from idd_seg.losses.ops.class_products import class_products
from idd_seg.losses.ops.class_sums import channels_last, class_sums
from idd_seg.losses.ops.mean_products import mean_products, unit_map
from idd_seg.losses.ops.prototypes import graph_prototypes
from tests.losses.scenes import random_features, random_labels

LAYOUTS = (torch.contiguous_format, torch.channels_last)
# Of a dense product, and of additions cell by cell in blocks of channels.
WAYS = ((48, 64), (0, 64), (0, 2))


@pytest.fixture(params=WAYS, ids=["dense", "sparse", "sparse in blocks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    dense, block = request.param
    monkeypatch.setattr(sums_module, "DENSE", dense)
    monkeypatch.setattr(sums_module, "BLOCK", block)
    monkeypatch.setattr(cosines_module, "BLOCK", block)
    monkeypatch.setattr(products_module, "BLOCK", block)


def scene(layout: torch.memory_format, k: int = 4) -> tuple[Tensor, Cells]:
    features = random_features(2, 5, 3, 4).to(memory_format=layout)
    index = torch.randint(k + 1, (2, 12), generator=torch.Generator().manual_seed(1))
    index[index == 1] = 0  # column 1 is absent
    return features, Cells(k, index=index)


def literal_sums(features: Tensor, cells: Cells) -> Tensor:
    rows = []
    for image, k in product(range(len(features)), range(cells.columns)):
        assert cells.index is not None
        rows.append(features[image].flatten(1)[:, cells.index[image] == k].sum(1))
    return torch.stack(rows).view(len(features), cells.columns, -1)


def literal_cosines(features: Tensor, cells: Cells) -> Tensor:
    assert cells.index is not None
    n, p = cells.index.shape
    means = literal_sums(features, cells) / cells.pixels(features.dtype).clamp(min=1)[..., None]
    found = []
    for image, cell in product(range(n), range(p)):
        k = int(cells.index[image, cell])
        vector = features[image].flatten(1)[:, cell]
        found.append(F.cosine_similarity(vector, means[image, k], dim=0) if k < cells.columns else vector.sum() * 0)
    return torch.stack(found).view(n, p)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("what", ["sums", "cosines"])
def test_values_and_gradients_are_those_of_the_loops(layout: torch.memory_format, what: str) -> None:
    features, cells = scene(layout)
    assert channels_last(features) == (layout is torch.channels_last)
    ours, theirs = {"sums": (class_sums, literal_sums), "cosines": (class_cosines, literal_cosines)}[what]
    gradients = []
    for function in (ours, theirs):
        leaf = features.clone(memory_format=torch.preserve_format).requires_grad_()
        found = function(leaf, cells)
        weights = random_features(*found.shape, seed=2)
        (gradient,) = torch.autograd.grad((found * weights).sum(), leaf)
        gradients.append((found.detach(), gradient))
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    torch.testing.assert_close(gradients[0][1], gradients[1][1])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("function", [class_sums, class_cosines])
def test_gradients_come_in_the_layout_of_the_features(layout: torch.memory_format, function: object) -> None:
    features, cells = scene(layout)
    features.requires_grad_()
    (gradient,) = torch.autograd.grad(function(features, cells).sum(), features)  # type: ignore[operator]
    assert gradient.is_contiguous(memory_format=layout)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradcheck(layout: torch.memory_format) -> None:
    features, cells = scene(layout)
    for function in (class_sums, class_cosines):
        assert torch.autograd.gradcheck(lambda x, f=function: f(x, cells), features.requires_grad_())


@pytest.mark.usefixtures("way")
def test_a_zero_feature_has_cosine_zero_and_a_finite_gradient() -> None:
    features, cells = scene(torch.contiguous_format)
    with torch.no_grad():
        features[0] = 0
    leaf = features.requires_grad_()
    cosines = class_cosines(leaf, cells)
    assert (cosines[0] == 0).all()
    (gradient,) = torch.autograd.grad(cosines.sum(), leaf)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("resize", ["nearest", "area"])
def test_many_classes_take_only_columns_of_those_present(monkeypatch: pytest.MonkeyPatch, resize: str) -> None:
    labels = random_labels(2, 8, 8, num_classes=300, stray=(255, -1, 400))
    student, teacher = random_features(2, 4, 4, 4), random_features(2, 3, 2, 2, seed=1)
    found = []
    for compact in (256, 10**6):
        monkeypatch.setitem(cells_module.COMPACT, "cpu", compact)
        found.append(inter_class_distance(student, teacher, labels, 300, resize=resize, scope="batch"))
    torch.testing.assert_close(found[0], found[1])
    monkeypatch.setitem(cells_module.COMPACT, "cpu", 256)
    columns = columns_for([labels], 300, 255, world=False)
    assert len(columns) == len({int(x) for x in labels.unique() if 0 <= x < 300 and x != 255})
    cells = cells_of(labels, (4, 4), columns, 255, resize, torch.float64)
    assert cells.pixels(torch.float64).shape == (2, len(columns))


@pytest.mark.parametrize("graphs", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_with_all_classes_equal_plain_sums(layout: torch.memory_format, graphs: int, way: None) -> None:
    features, _ = scene(layout)
    vectors = random_features(graphs, 4, 5, seed=2)
    leaves = features.clone(memory_format=torch.preserve_format).requires_grad_(), vectors.requires_grad_()
    products, squared = class_products(*leaves)
    plain = torch.einsum("ncp,nkc->nkp", features.flatten(2), vectors.expand(2, -1, -1))
    torch.testing.assert_close(products, plain)
    torch.testing.assert_close(squared, features.flatten(2).square().sum(1))
    assert torch.autograd.gradcheck(class_products, leaves)
    products.square().sum().backward()
    assert leaves[0].grad is not None
    assert channels_last(leaves[0].grad) is channels_last(features)


@pytest.mark.parametrize("scope", ["image", "batch", "world"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_means_and_products_in_one_are_those_of_two_steps(layout: torch.memory_format, scope: str, way: None) -> None:
    features, cells = scene(layout)
    leaf = features.clone(memory_format=torch.preserve_format).requires_grad_()
    found = mean_products(leaf, cells, scope)
    means = graph_prototypes(leaf, cells, scope).means
    expected = (means, *class_products(leaf, means))
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain)
    assert torch.autograd.gradcheck(lambda x: mean_products(x, cells, scope), leaf)
    (gradient,) = torch.autograd.grad(sum(x.square().sum() for x in found), leaf)
    assert channels_last(gradient) is channels_last(features)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_unit_map_equals_the_plain_one(layout: torch.memory_format, way: None) -> None:
    features, _ = scene(layout)
    features[0, :, 0, 0] = 0
    torch.testing.assert_close(unit_map(features), F.normalize(features, dim=1))
    leaf = (features + 1e-3).requires_grad_()
    assert torch.autograd.gradcheck(unit_map, leaf)
    zero = torch.zeros(1, 3, 2, 2, requires_grad=True)
    unit_map(zero).sum().backward()
    assert zero.grad is not None
    assert not zero.grad.any()
