"""What is to be exported: formats, their forms, the names of their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from idd_seg.errors import ConfigError, suggest
from idd_seg.exporting import onnx_file
from idd_seg.runtimes.openvino_session import require_openvino

FORMATS = ("safetensors", "onnx", "openvino", "torch_export")
# Files of a format and its forms; OpenVINO's have a .bin beside them.
STEMS = {"onnx": "model{}.onnx", "openvino": "openvino_model{}.xml"}
FORMS = ("winograd", "fp16", "int8")


@dataclass
class ExportPlan:
    """What is to be written.

    Args:
        formats: of `FORMATS`.
        winograd: also files whose wide convolutions are Winograd's products, for CPUs.
        fp16: also files in float16.
        int8: also files whose layers are in 8 bits.
        tolerance: largest difference from PyTorch that counts as rounding, relative to the largest logit.

    Raises:
        ConfigError: for an unknown format, nothing to write, or a form of no file.
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
        for option in FORMS:
            if not isinstance(getattr(self, option), bool):
                raise ConfigError(f"{option} must be true or false, got '{getattr(self, option)}'")
            if getattr(self, option) and not self.runtimes:
                raise ConfigError(f"{option}=true writes a form of the ONNX or OpenVINO file; add onnx to formats")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int | float) or not self.tolerance > 0:
            raise ConfigError(f"tolerance must be a number above 0, got '{self.tolerance}'")
        if "onnx" in self.formats:
            onnx_file.require_onnx("formats=[onnx]")
        if "openvino" in self.formats:
            onnx_file.require_onnx("formats=[openvino]", "openvino")
            require_openvino("formats=[openvino]", *(["nncf"] if self.int8 else []))

    @property
    def runtimes(self) -> list[str]:
        """The formats that are graphs for a runtime."""
        return [name for name in STEMS if name in self.formats]


def file_of(runtime: str, form: str = "") -> str:
    """Return the name of a runtime's file, in a form of `FORMS` or as it is."""
    return STEMS[runtime].format(f"_{form}" if form else "")


def runtime_versions(plan: ExportPlan) -> dict[str, str]:
    """Return the versions of the packages that wrote and checked the graphs."""
    from importlib.metadata import version

    packages = [*onnx_file.NEEDED] if plan.runtimes else []
    if "openvino" in plan.runtimes:
        packages += ["openvino", *(["nncf"] if plan.int8 else [])]
    return {name: version(name) for name in packages}
