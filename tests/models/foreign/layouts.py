"""The names and shapes in checkpoints of CIRKD and mmsegmentation, written down from what those projects publish."""

from __future__ import annotations

Layout = dict[str, tuple[int, ...]]

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def norm(name: str, width: int) -> Layout:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{v}": (width,) for v in vectors}, f"{name}.num_batches_tracked": ()}


def stages(prefix: str, depth: int) -> Layout:
    """The four stages behind a stem of 128 channels."""
    found: Layout = {}
    channels, deep = 128, depth >= 50
    for stage, (count, width) in enumerate(zip(BLOCKS[depth], (64, 128, 256, 512), strict=True), start=1):
        out = 4 * width if deep else width
        for i in range(count):
            name = f"{prefix}.layer{stage}.{i}"
            if deep:
                found[f"{name}.conv1.weight"] = (width, channels, 1, 1)
                found[f"{name}.conv2.weight"] = (width, width, 3, 3)
                found[f"{name}.conv3.weight"] = (out, width, 1, 1)
                found |= norm(f"{name}.bn3", out)
            else:
                found[f"{name}.conv1.weight"] = (width, channels, 3, 3)
                found[f"{name}.conv2.weight"] = (width, width, 3, 3)
            found |= norm(f"{name}.bn1", width) | norm(f"{name}.bn2", width)
            # The stem is wider than the first stage of plain networks, so that it has a shortcut of its own too.
            if i == 0:
                found[f"{name}.downsample.0.weight"] = (out, channels, 1, 1)
                found |= norm(f"{name}.downsample.1", out)
            channels = out
    return found


def cirkd(head: str, depth: int, classes: int) -> Layout:
    found: Layout = {}
    for i, (before, after) in enumerate(((3, 64), (64, 64), (64, 128)), start=1):
        found[f"pretrained.conv{i}.weight"] = (after, before, 3, 3)
        found |= norm(f"pretrained.bn{i}", after)
    found |= stages("pretrained", depth)
    last = 2048 if depth >= 50 else 512
    if head == "psp":
        width = 256 if depth >= 50 else 128
        for i in (1, 2, 3, 4):
            found[f"head.psp.conv{i}.0.weight"] = (last // 4, last, 1, 1)
            found |= norm(f"head.psp.conv{i}.1", last // 4)
        found["head.block.0.weight"] = (width, 2 * last, 3, 3)
        found |= norm("head.block.1", width)
        found |= {"head.classifier.weight": (classes, width, 1, 1), "head.classifier.bias": (classes,)}
        return found
    found["head.aspp.b0.0.weight"] = (512, last, 1, 1)
    found |= norm("head.aspp.b0.1", 512)
    for i in (1, 2, 3):
        found[f"head.aspp.b{i}.block.0.weight"] = (512, last, 3, 3)
        found |= norm(f"head.aspp.b{i}.block.1", 512)
    found["head.aspp.b4.gap.1.weight"] = (512, last, 1, 1)
    found |= norm("head.aspp.b4.gap.2", 512)
    found["head.aspp.project.0.weight"] = (512, 2560, 1, 1)
    found |= norm("head.aspp.project.1", 512)
    found["head.block.0.weight"] = (512, 512, 3, 3)
    found |= norm("head.block.1", 512)
    return found | {"head.block.4.weight": (classes, 512, 1, 1), "head.block.4.bias": (classes,)}


def cirkd_auxiliary(classes: int) -> Layout:
    return {
        "auxlayer.block.0.weight": (256, 1024, 3, 3),
        **norm("auxlayer.block.1", 256),
        "auxlayer.block.4.weight": (classes, 256, 1, 1),
        "auxlayer.block.4.bias": (classes,),
    }


def conv_module(name: str, *shape: int) -> Layout:
    return {f"{name}.conv.weight": shape, **norm(f"{name}.bn", shape[0])}


def separable(name: str, width: int, channels: int) -> Layout:
    depthwise = conv_module(f"{name}.depthwise_conv", channels, 1, 3, 3)
    return depthwise | conv_module(f"{name}.pointwise_conv", width, channels, 1, 1)


def mmseg(head: str, depth: int, classes: int) -> Layout:
    found: Layout = {}
    for i, (before, after) in ((0, (3, 64)), (3, (64, 64)), (6, (64, 128))):
        found[f"backbone.stem.{i}.weight"] = (after, before, 3, 3)
        found |= norm(f"backbone.stem.{i + 1}", after)
    found |= stages("backbone", depth)
    last, width, fine, name = (2048, 512, 48, "decode_head") if depth >= 50 else (512, 128, 12, "decode_head")
    found |= {f"{name}.conv_seg.weight": (classes, width, 1, 1), f"{name}.conv_seg.bias": (classes,)}
    if head == "psp":
        for i in range(4):
            found |= conv_module(f"{name}.psp_modules.{i}.1", width, last, 1, 1)
        return found | conv_module(f"{name}.bottleneck", width, last + 4 * width, 3, 3)
    found |= conv_module(f"{name}.image_pool.1", width, last, 1, 1)
    found |= conv_module(f"{name}.aspp_modules.0", width, last, 1, 1)
    if head == "aspp":
        for i in (1, 2, 3):
            found |= conv_module(f"{name}.aspp_modules.{i}", width, last, 3, 3)
        return found | conv_module(f"{name}.bottleneck", width, 5 * width, 3, 3)
    for i in (1, 2, 3):
        found |= separable(f"{name}.aspp_modules.{i}", width, last)
    found |= separable(f"{name}.bottleneck", width, 5 * width)
    found |= conv_module(f"{name}.c1_bottleneck", fine, 256 if depth >= 50 else 64, 1, 1)
    found |= separable(f"{name}.sep_bottleneck.0", width, width + fine)
    return found | separable(f"{name}.sep_bottleneck.1", width, width)


def mmseg_auxiliary(classes: int) -> Layout:
    name = "auxiliary_head"
    return {
        **conv_module(f"{name}.convs.0", 256, 1024, 3, 3),
        f"{name}.conv_seg.weight": (classes, 256, 1, 1),
        f"{name}.conv_seg.bias": (classes,),
    }
