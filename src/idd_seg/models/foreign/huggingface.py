"""Segmentation networks of transformers: SegFormer, UPerNet, DPT, BEiT, and mask classification (Mask2Former)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models.foreign.extras import needed
from idd_seg.models.foreign.input import InputFormat
from idd_seg.models.foreign.network import ForeignNetwork, Maker, Opened
from idd_seg.models.foreign.repository import CONFIG, PICTURES, folder_hash, folder_of, read_json
from idd_seg.ops.private_api import opens

# Where the last convolution stands, before which the map `head` is read.
CLASSIFIERS = ("decode_head.classifier", "head.head.4")
LEVELS = 4
SMALLEST = 1e-7  # of a summed probability, so that its logarithm is finite
# Parts of files that training alone uses.
AUXILIARY = ("auxiliary_head.",)
# Vision transformers whose positions are those of square pictures of one size.
FIXED_SIZE = ("dpt", "beit", "data2vec-vision", "eomt")


class HuggingFace(ForeignNetwork):
    """A network of transformers, read from a folder; code that may lie in the folder is never executed.

    Per-pixel classifiers give `head`, the map before the classifier, and `stage1` to `stage4` where the trunk has four
    maps. Mask classification gives as logits the logarithm of what its paper sums: over all queries, the probability
    of a class times that of the query's mask (B. Cheng et al., NeurIPS 2021); `head` is the pixel decoder's map.

    Args:
        input: builds the normalisation; what it leaves open is read from the folder's `preprocessor_config.json`.
        folder: with `config.json` and weights in safetensors.
        num_classes: None takes the folder's.

    Raises:
        ConfigError: for another number of classes than the folder's, or if transformers is not installed.
        CheckpointError: for a network that does not segment, or weights that do not fit it.
    """

    def __init__(
        self, input: Callable[..., InputFormat], folder: str | Path | None = None, num_classes: int | None = None
    ) -> None:
        transformers = needed("transformers", "huggingface")
        if folder is None:
            raise ConfigError("teacher.checkpoint names the folder or the repository of teacher=huggingface")
        folder = Path(folder)
        config = _config(transformers, folder)
        labels = int(config.num_labels)
        if num_classes not in (None, labels):
            raise ConfigError(f"teacher.model.num_classes is {num_classes}, '{folder}' has {labels} labels")
        super().__init__(labels, _input(input, folder, config))
        self.net = _network(transformers, folder, config)
        self.masks = hasattr(self.net, "class_predictor")
        self.classifier: nn.Module = nn.Identity()
        if not self.masks:
            # In its place stands an identity, so that the network gives the map and the logits are made here.
            path = _classifier_of(self.net, labels, folder)
            self.classifier = self.net.get_submodule(path)
            self.net.set_submodule(path, nn.Identity())

    def maps(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if self.masks:
            return self._of_masks(image)
        if hasattr(self.net, "backbone") and hasattr(self.net, "decode_head"):
            # UPerNet would scale a map of hundreds of channels to the picture's size.
            levels = self.net.get_submodule("backbone")(image).feature_maps
            head = self.net.get_submodule("decode_head")(levels)
        else:
            found = self.net(image, output_hidden_states=True)
            head, levels = found.logits, found.hidden_states
        return self.classifier(head), {**_stages(levels), "head": head}

    def _of_masks(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.net(image, output_hidden_states=True)
        classes = found.class_queries_logits.float().softmax(dim=-1)[..., :-1]  # the last one stands for no object
        masks = found.masks_queries_logits.float().sigmoid()
        likely = torch.einsum("nqk,nqhw->nkhw", classes, masks)
        features = {**_stages(found.encoder_hidden_states), "head": found.pixel_decoder_last_hidden_state}
        return likely.clamp(min=SMALLEST).log(), features

    @classmethod
    def open(cls, checkpoint: str, make: Maker) -> Opened:
        folder = folder_of(checkpoint)
        network = make(folder=str(folder))
        labels = read_json(folder / CONFIG).get("id2label")
        names = None
        if isinstance(labels, dict) and set(labels) == {str(i) for i in range(network.num_classes)}:
            names = [str(labels[str(i)]) for i in range(network.num_classes)]
        source = {"path": str(folder.resolve()), "sha256": folder_hash(folder), "network": cls.__name__}
        if str(folder) != checkpoint:
            source["name"] = checkpoint
        return Opened(network, source, names, [f"'{checkpoint}': loaded, {network.num_classes} classes"])


def _config(transformers: Any, folder: Path) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # Its checks raise what they like: ValueError for an unknown type, KeyError, TypeError for odd values.
        raise CheckpointError(f"'{folder}': transformers can't use its {CONFIG}: {_line(error)}") from error
    # Weights of the trunk come with the others, and not from the network.
    config.use_pretrained_backbone = False
    return config


def _network(transformers: Any, folder: Path, config: Any) -> Any:
    """Load the network, or refuse: transformers itself would fill what is missing at random."""
    kinds = (transformers.AutoModelForSemanticSegmentation, transformers.AutoModelForUniversalSegmentation)
    kind = next((k for k in kinds if opens(k, config)), None)
    if kind is None:
        raise CheckpointError(f"'{folder}' is a network of type '{config.model_type}', which does not segment")
    try:
        network, found = kind.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise CheckpointError(f"'{folder}': transformers can't load it: {_line(error)}") from error
    unknown = [key for key in found["unexpected_keys"] if not key.startswith(AUXILIARY)]
    for keys, what in ((found["missing_keys"], "are missing"), (unknown, "are not known")):
        if keys:
            some = sorted(keys)
            raise CheckpointError(f"'{folder}': {len(some)} tensors {what}, the first is {some[0]}")
    return network


def _classifier_of(network: nn.Module, labels: int, folder: Path) -> str:
    for path in CLASSIFIERS:
        try:
            layer = network.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(layer, nn.Conv2d) and layer.out_channels == labels:
            return path
    raise CheckpointError(
        f"'{folder}': {type(network).__name__} is none of the networks that this program reads: SegFormer, UPerNet, "
        "DPT, BEiT, Data2VecVision, Mask2Former"
    )


def _input(input: Callable[..., InputFormat], folder: Path, config: Any) -> InputFormat:
    """Complete the normalisation by what the folder says of pictures."""
    said = read_json(folder / PICTURES)
    given: Mapping[str, Any] = getattr(input, "keywords", {})
    flat = said.get("do_normalize") is False
    usual = {
        "mean": [0.0] * 3 if flat else said.get("image_mean", [0.485, 0.456, 0.406]),
        "std": [1.0] * 3 if flat else said.get("image_std", [0.229, 0.224, 0.225]),
        "scale": 255.0 * said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 255.0,
        "order": "bgr" if said.get("do_flip_channel_order") else "rgb",
    }
    side = getattr(config, "image_size", None)
    if config.model_type in FIXED_SIZE and isinstance(side, int):
        usual["size"] = [side, side]
    try:
        return input(**{name: value for name, value in usual.items() if given.get(name) is None})
    except TypeError as error:
        raise CheckpointError(f"'{folder / PICTURES}' does not say a mean and a deviation for each channel") from error


def _stages(maps: Any) -> dict[str, Tensor]:
    """Name four maps of (N, C, h, w); tokens, or another number of maps, have no name here."""
    found = [x for x in maps or () if isinstance(x, Tensor) and x.ndim == 4]
    return {f"stage{i + 1}": x for i, x in enumerate(found)} if len(found) == LEVELS else {}


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
