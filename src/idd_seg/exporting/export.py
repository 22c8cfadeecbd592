"""From a checkpoint to a folder that ships: each file is checked against PyTorch before the folder appears."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from idd_seg.checkpoints.exported_folder import CONFIG, WEIGHTS
from idd_seg.errors import ConfigError
from idd_seg.exporting import calibration, int8_onnx, int8_openvino, onnx_file, openvino_file, parity, web
from idd_seg.exporting.card import model_card
from idd_seg.exporting.folder import config_of, metrics_of, write_weights
from idd_seg.exporting.graph import Deployed, deployable, of_any_size
from idd_seg.exporting.keep_float import Quantise, quantise_within
from idd_seg.exporting.onnx_classes import CLASSES
from idd_seg.exporting.plan import ExportPlan, file_of, runtime_versions
from idd_seg.exporting.web_runtime import Runtime
from idd_seg.library import Model, load
from idd_seg.models.segmenter import count_parameters
from idd_seg.ops.private_api import sides_of_one
from idd_seg.runs.provenance import versions, write_json
from idd_seg.runtimes.network import FileNetwork, session_of
from idd_seg.runtimes.onnx_session import OnnxSession
from idd_seg.runtimes.openvino_session import OpenVinoSession, has_bfloat16

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

PROGRAM = "model.pt2"
HALF_TOLERANCE = 2e-2  # float16 has 11 bits; through some fifty layers


@contextmanager
def _timed(what: str) -> Iterator[None]:
    """Say what is being written, and how long it took with its comparison: large networks take minutes."""
    start = time.perf_counter()
    print(f"writing {what} ...", flush=True)
    yield
    print(f"wrote {what} in {time.perf_counter() - start:.1f} s", flush=True)


@dataclass
class Export:
    """An export on its way: files lie in `draft` until all of them are there and right.

    Args:
        runtime: for the format web, and for no other.
    """

    model: Model
    plan: ExportPlan
    draft: Path
    runtime: Runtime | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    runners: dict[str, parity.Runner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if ("web" in self.plan.formats) != (self.runtime is not None):
            raise ValueError("a runtime is needed for the format web, and for no other")
        network = self.model.network
        if isinstance(network, FileNetwork):
            raise ConfigError(
                f"checkpoint={self.model.saved.path} is a graph of a runtime, without the network's weights; "
                "export a checkpoint, or a folder with model.safetensors"
            )
        self.folded = deployable(network)
        self.original = Deployed(copy.deepcopy(network), self.model.card).eval()
        self.runners["pytorch"] = self.original

    def write(self) -> None:
        """Write the files of the plan, but for int8."""
        write_json(self.draft / CONFIG, config_of(self.model.saved, self.model.card))
        if "safetensors" in self.plan.formats:
            with _timed(WEIGHTS):
                path = write_weights(self.folded, self.draft)
                self.runners[WEIGHTS] = Deployed(load(self.draft, "cpu").network, self.model.card).eval()
                self._note(path, WEIGHTS, self.plan.tolerance)
        if "onnx" in self.plan.formats:
            self._onnx()
        if "openvino" in self.plan.formats:
            self._openvino()
        if "torch_export" in self.plan.formats:
            with _timed(PROGRAM):
                self._program()
        if self.runtime is not None:
            with _timed(f"{web.FOLDER}/{web.PAGE}"):
                self._web(self.runtime)

    def _onnx(self) -> None:
        for form, wanted in (("", True), ("winograd", self.plan.winograd), ("fp16", self.plan.fp16)):
            if wanted:
                name = file_of("onnx", form)
                with _timed(name):
                    self._graph(self.draft / name, form)
                    self._open(name, HALF_TOLERANCE if form == "fp16" else self.plan.tolerance)

    def _graph(self, path: Path, form: str = "") -> None:
        graph = Deployed(of_any_size(self.folded), self.model.card, half=form == "fp16")
        onnx_file.write_onnx(graph, path, self._metadata(), form == "winograd", self.model.card.pixels)

    def _openvino(self) -> None:
        with tempfile.TemporaryDirectory(dir=self.draft.parent) as folder:
            for form, wanted in (("", True), ("winograd", self.plan.winograd), ("fp16", self.plan.fp16)):
                if wanted:
                    name, half = file_of("openvino", form), form == "fp16"
                    with _timed(name):
                        # OpenVINO packs the weights of the file in float32; it has no use for a graph in float16.
                        source = self.draft / file_of("onnx", "" if half else form)
                        if not source.is_file():
                            source = Path(folder) / source.name
                        if not source.is_file():
                            self._graph(source, "" if half else form)
                        openvino_file.write_openvino(source, self.draft / name, half)
                        self._open(name, HALF_TOLERANCE if half else self.plan.tolerance)

    def _open(self, name: str, tolerance: float) -> None:
        """Open a file in its runtime, and compare it."""
        self.runners[name] = session_of(self.draft / name)
        self._note(self.draft / name, name, tolerance)

    def _web(self, runtime: Runtime) -> None:
        with tempfile.TemporaryDirectory(dir=self.draft.parent) as folder:
            logits = self.draft / file_of("onnx")
            if "onnx" not in self.plan.formats:
                logits = Path(folder) / logits.name
                self._graph(logits)
            title = str(self.model.saved.metadata.get("name") or "A student")
            written = web.write_web(logits, self.draft / web.FOLDER, self.model.card, title, runtime)
        session = OnnxSession(self.draft / web.FOLDER / web.MODEL, output=CLASSES)
        found = parity.compare_classes(self.original, session, self.model.card.pixels)
        parity.refuse_difference(f"{web.FOLDER}/{web.MODEL}", found, 2 * self.plan.tolerance)
        written[web.MODEL]["parity"] = found.as_dict(2 * self.plan.tolerance)
        self.files.update({f"{web.FOLDER}/{name}": entry for name, entry in written.items()})

    def _metadata(self) -> dict[str, str]:
        return {
            "class_names": "\n".join(self.model.class_names),
            "palette": "\n".join("{:d},{:d},{:d}".format(*colour) for colour in self.model.palette),
            "channels": str(self.model.card.pixels.channels),
            "bits": str(self.model.card.pixels.bits),
            "sha256": self.model.saved.sha256,
        }

    def _program(self) -> None:
        # Traced with a graph for any size, as PyTorch's own pooling would be written for one.
        graph: nn.Module = Deployed(of_any_size(self.folded), self.model.card).eval()
        shapes = (onnx_file.any_shape(),)
        with sides_of_one():
            program = torch.export.export(graph, (onnx_file.example(self.model.card.pixels),), dynamic_shapes=shapes)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # lines of code, with paths of this machine
        torch.export.save(program, self.draft / PROGRAM)
        self.runners[PROGRAM] = torch.export.load(self.draft / PROGRAM).module()
        self._note(self.draft / PROGRAM, PROGRAM, self.plan.tolerance)

    def _note(self, path: Path, runner: str, tolerance: float) -> None:
        """Compare a file with the network as it was trained, and refuse it if they differ."""
        found = parity.compare(self.original, self.runners[runner], self.model.card.pixels)
        parity.refuse_difference(path.name, found, tolerance)
        self.files[path.name] = {"bytes": _bytes(path), "parity": found.as_dict(tolerance)}

    def quantise(self, data: SegmentationDataModule, images: int, split: str, max_drop: float | None) -> dict[str, Any]:
        """Write the files in 8 bits; return mIoU on `split` before and after.

        Raises:
            UserError: if they lose more than `max_drop` points of mIoU, whatever stays in float.
        """
        pictures = calibration.Pictures(data, images)
        before, files = None, {}
        for runtime in self.plan.runtimes:
            source, name = file_of(runtime), file_of(runtime, "int8")
            tool: Any = {"onnx": int8_onnx, "openvino": int8_openvino}[runtime]
            judge = partial(calibration.judge, data=data, split=split)
            if before is None:
                before = judge(self.runners[source], title=f"{source}, {split}")
            with _timed(f"{name}, calibrated on {len(pictures)} pictures"):
                kept = quantise_within(
                    name,
                    self._quantiser(tool, source, name),
                    tool.layers(self.draft / source),
                    pictures,
                    partial(judge, title=f"{name}, {split}"),
                    before,
                    self.runners[source],
                    max_drop,
                )
            self.runners[name] = kept.runner
            same_class = parity.compare(self.original, kept.runner, self.model.card.pixels).same_class
            self.files[name] = {"bytes": _bytes(self.draft / name), "same_class": same_class}
            files[name] = {"after": kept.after.as_dict(data.class_names), "in_float": kept.in_float}
        assert before is not None  # without a runtime there is no int8
        return {
            "calibration_images": len(pictures),
            "split": split,
            "max_drop": max_drop,
            "before": before.as_dict(data.class_names),
            "files": files,
        }

    def _quantiser(self, tool: Any, source: str, name: str) -> Quantise:
        """Return what writes the 8-bit file anew, and opens it."""

        def quantise(in_float: Sequence[str], pictures: Sequence[Tensor]) -> parity.Runner:
            tool.quantise(self.draft / source, self.draft / name, pictures, in_float)
            return session_of(self.draft / name)

        return quantise

    def timed(self) -> dict[str, parity.Runner]:
        """Return what the speed is measured of: PyTorch first, each file, and OpenVINO's in bfloat16 where there is."""
        found = dict(self.runners)
        plain = file_of("openvino")
        if plain in found and has_bfloat16():
            found[f"{plain}, bfloat16"] = OpenVinoSession(self.draft / plain, "bfloat16")
        return found

    def describe(self, more: dict[str, Any]) -> dict[str, Any]:
        """Write configuration, model card and report; return the report."""
        config = config_of(self.model.saved, self.model.card)
        report = {
            "source": config["source"],
            "parameters": count_parameters(self.folded),
            "files": self.files,
            "exported_with": {**versions(), **runtime_versions(self.plan)},
            **more,
        }
        write_json(self.draft / "export.json", report)
        page = model_card(config, self.model.card, report, metrics_of(self.model.saved))
        (self.draft / "README.md").write_text(page, encoding="utf-8")
        return report


def _bytes(path: Path) -> int:
    return openvino_file.size_of(path) if path.suffix == ".xml" else path.stat().st_size


def check_target(target: Path) -> Path:
    """Return the folder to make.

    Raises:
        ConfigError: if there is something already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"output={target}: there is something already, and nothing is overwritten; choose another")
    return target
