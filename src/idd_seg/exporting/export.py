"""From a checkpoint to a folder that ships: each file is checked against PyTorch before the folder appears."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from idd_seg.checkpoints.exported_folder import CONFIG, WEIGHTS
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.errors import ConfigError, suggest
from idd_seg.exporting import int8, onnx_file, parity, web
from idd_seg.exporting.card import model_card
from idd_seg.exporting.folder import config_of, metrics_of, write_weights
from idd_seg.exporting.graph import Deployed, deployable, of_any_size
from idd_seg.exporting.onnx_classes import CLASSES
from idd_seg.exporting.web_runtime import Runtime
from idd_seg.library import Model, load
from idd_seg.models.segmenter import count_parameters
from idd_seg.plotting.tables import percent
from idd_seg.runs.provenance import versions, write_json

FORMATS = ("safetensors", "onnx", "torch_export", "web")
ONNX_WINOGRAD = "model_winograd.onnx"
ONNX, ONNX_HALF, ONNX_INT8, PROGRAM = "model.onnx", "model_fp16.onnx", "model_int8.onnx", "model.pt2"
HALF_TOLERANCE = 2e-2  # float16 has 11 bits; through some fifty layers


@dataclass
class ExportPlan:
    """What is to be written.

    Args:
        formats: of `FORMATS`.
        winograd: also an ONNX file whose wide convolutions are Winograd's products, for CPUs.
        fp16: also an ONNX file in float16.
        tolerance: largest difference from PyTorch that counts as rounding, relative to the largest logit.

    Raises:
        ConfigError: for an unknown format, nothing to write, or a form of ONNX without ONNX.
        UserError: if a package is missing.
    """

    formats: Sequence[str]
    winograd: bool = False
    fp16: bool = False
    int8: bool = False
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if isinstance(self.formats, str) or not self.formats:
            raise ConfigError(f"formats must be a list of {', '.join(FORMATS)}, got '{self.formats}'")
        for name in self.formats:
            if name not in FORMATS:
                raise ConfigError(
                    f"formats: there is no '{name}'{suggest(str(name), FORMATS)} They are {', '.join(FORMATS)}"
                )
        for option in ("winograd", "fp16", "int8"):
            if not isinstance(getattr(self, option), bool):
                raise ConfigError(f"{option} must be true or false, got '{getattr(self, option)}'")
            if getattr(self, option) and "onnx" not in self.formats:
                raise ConfigError(f"{option}=true writes a form of the ONNX file; add onnx to formats")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int | float) or not self.tolerance > 0:
            raise ConfigError(f"tolerance must be a number above 0, got '{self.tolerance}'")
        for name in ("onnx", "web"):
            if name in self.formats:
                onnx_file.require_onnx(name)


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
        self.folded = deployable(network)
        self.original = Deployed(copy.deepcopy(network), self.model.card).eval()
        self.runners["pytorch"] = self.original

    def write(self) -> None:
        """Write the files of the plan, but for int8."""
        if "safetensors" in self.plan.formats:
            with _timed(WEIGHTS):
                write_json(self.draft / CONFIG, config_of(self.model.saved, self.model.card))
                path = write_weights(self.folded, self.draft)
                self.runners[WEIGHTS] = Deployed(load(self.draft, "cpu").network, self.model.card).eval()
                self._note(path, WEIGHTS, self.plan.tolerance)
        if "onnx" in self.plan.formats:
            self._onnx(ONNX, self.plan.tolerance)
        if self.plan.winograd:
            self._onnx(ONNX_WINOGRAD, self.plan.tolerance, winograd=True)
        if self.plan.fp16:
            self._onnx(ONNX_HALF, HALF_TOLERANCE, half=True)
        if "torch_export" in self.plan.formats:
            with _timed(PROGRAM):
                self._program()
        if self.runtime is not None:
            with _timed(f"{web.FOLDER}/{web.PAGE}"):
                self._web(self.runtime)

    def _onnx(self, name: str, tolerance: float, half: bool = False, winograd: bool = False) -> None:
        with _timed(name):
            graph = Deployed(of_any_size(self.folded), self.model.card, half)
            onnx_file.write_onnx(graph, self.draft / name, self._metadata(), winograd, self.model.card.pixels)
            self.runners[name] = onnx_file.Session(self.draft / name)
            self._note(self.draft / name, name, tolerance)

    def _web(self, runtime: Runtime) -> None:
        logits = self.draft / ONNX
        if "onnx" not in self.plan.formats:
            graph = Deployed(of_any_size(self.folded), self.model.card)
            onnx_file.write_onnx(graph, logits, self._metadata(), pixels=self.model.card.pixels)
        title = str(self.model.saved.metadata.get("name") or "A student")
        written = web.write_web(logits, self.draft / web.FOLDER, self.model.card, title, runtime)
        if "onnx" not in self.plan.formats:
            logits.unlink()
        session = onnx_file.Session(self.draft / web.FOLDER / web.MODEL, output=CLASSES)
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
        self.files[path.name] = {"bytes": path.stat().st_size, "parity": found.as_dict(tolerance)}

    def quantise(self, data: SegmentationDataModule, images: int, split: str) -> dict[str, Any]:
        """Write the int8 file; return mIoU on `split` before and after."""
        with _timed(f"{ONNX_INT8}, calibrated on {images} pictures"):
            pictures = int8.calibration_pictures(data, images)
            int8.quantise(self.draft / ONNX, self.draft / ONNX_INT8, pictures)
        self.runners[ONNX_INT8] = onnx_file.Session(self.draft / ONNX_INT8)
        found = parity.compare(self.original, self.runners[ONNX_INT8], self.model.card.pixels)
        self.files[ONNX_INT8] = {"bytes": (self.draft / ONNX_INT8).stat().st_size, "same_class": found.same_class}
        before, after = (int8.judge(self.runners[n], data, split, f"{n}, {split}") for n in (ONNX, ONNX_INT8))
        return {
            "calibration_images": images,
            "split": split,
            "before": before.as_dict(data.class_names),
            "after": after.as_dict(data.class_names),
        }

    def describe(self, more: dict[str, Any]) -> dict[str, Any]:
        """Write configuration, model card and report; return the report."""
        config = config_of(self.model.saved, self.model.card)
        report = {
            "checkpoint": str(self.model.saved.path),
            "source": config["source"],
            "parameters": count_parameters(self.folded),
            "files": self.files,
            "exported_with": {**versions(), **onnx_versions(self.plan)},
            **more,
        }
        write_json(self.draft / "export.json", report)
        page = model_card(config, self.model.card, report, metrics_of(self.model.saved))
        (self.draft / "README.md").write_text(page, encoding="utf-8")
        return report


def onnx_versions(plan: ExportPlan) -> dict[str, str]:
    """Return the versions of the packages that wrote and checked ONNX files."""
    if not {"onnx", "web"} & set(plan.formats):
        return {}
    from importlib.metadata import version

    return {name: version(name) for name in onnx_file.NEEDED}


def check_target(target: Path) -> Path:
    """Return the folder to make.

    Raises:
        ConfigError: if there is something already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"output={target}: there is something already, and nothing is overwritten; choose another")
    return target


def table_of(report: Mapping[str, Any]) -> None:
    """Print what was written: size, difference from PyTorch, speed and mIoU where they were measured."""
    from rich.console import Console
    from rich.table import Table

    found, speeds = report["files"], report.get("speed", {"images_per_second": {}, "ratio": {}})
    table = Table(title=f"{report['parameters'] / 1e6:.2f} million parameters", title_justify="left")
    for name in ("file", "MB", "largest difference", "same class, %", "images/s", "x PyTorch"):
        table.add_column(name, justify="left" if name == "file" else "right", overflow="fold")
    for name in dict.fromkeys([*(n for n in speeds["ratio"] if n.startswith("pytorch")), *found]):
        entry = found.get(name, {})
        compared = entry.get("parity", entry)
        table.add_row(
            name,
            f"{entry['bytes'] / 1e6:.2f}" if entry else "",
            f"{compared['max_abs_difference']:.1e}" if "max_abs_difference" in compared else "",
            f"{100 * compared['same_class']:.3f}" if "same_class" in compared else "",
            f"{speeds['images_per_second'].get(name, '')}",
            f"{speeds['ratio'].get(name, '')}",
        )
    Console().print(table)
    if speeds["ratio"]:
        print(f"speed: one picture of {speeds['size']}, {speeds['threads']} threads, median of {speeds['repeats']}")
    if "int8" in report:
        before, after = (percent(report["int8"][when]["miou"]) for when in ("before", "after"))
        print(f"int8: mIoU {before} % before, {after} % after, on the {report['int8']['split']} split")
