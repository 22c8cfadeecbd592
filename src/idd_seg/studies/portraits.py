"""Does a method do what it says? Class distances, confusions and position of the networks that a study has trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idd_seg.checkpoints.reader import Saved, read_checkpoint
from idd_seg.config import restore
from idd_seg.config.teacher_channels import channels_of
from idd_seg.evaluation import comparison
from idd_seg.evaluation.comparison import Portrait
from idd_seg.evaluation.device import pick_device
from idd_seg.evaluation.probes import matrix_error, near_confusion, near_pairs
from idd_seg.plotting.figures import save
from idd_seg.runs.provenance import write_json
from idd_seg.studies.statistics import Spread

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

Measured = dict[str, float]
_NETWORK = "network"  # key of the checkpoint's sha256
QUANTITIES = {  # key: column, factor
    "class_distance_error": ("class-distance error", 1.0),
    "near_confusion": ("near classes confused, %", 100.0),
    "position_mse": ("position read, MSE", 1.0),
    "position_spearman": ("position read, Spearman", 1.0),
}


class PortraitGallery:
    """Portraits of the runs of a study and of their teacher, on the split that the study reports.

    Args:
        runs: folders by method, by seed; the last of them has the teacher.
        kept: folder of the results.
        probe_steps: of each network's own position reader.
    """

    def __init__(
        self, runs: Mapping[str, Mapping[int, Path]], kept: Path, probe_steps: int, device: str = "auto"
    ) -> None:
        self.runs, self.kept, self.probe_steps = runs, kept, probe_steps
        self.device = pick_device(device)
        all_metadata = (_last(folder).metadata for folder in reversed(self._folders()))
        teacher = next((path for metadata in all_metadata if (path := metadata.get("teacher", {}).get("path"))), None)
        self.saved_teacher = read_checkpoint(teacher) if teacher else None
        self.data: SegmentationDataModule = restore.data_from(_last(self._folders()[0]), None, num_workers=0)
        if self.saved_teacher is not None and channels_of(self.saved_teacher) != self.data.pixels.channels:
            self.saved_teacher = None  # of fewer channels than its students: it has no portrait on their pictures
        self._teacher: Portrait | None = None

    def _folders(self) -> list[Path]:
        return [folder for seeds in self.runs.values() for folder in seeds.values()]

    @property
    def teacher(self) -> Portrait | None:
        """The teacher's, measured once; None where no run had one."""
        if self._teacher is None and self.saved_teacher is not None:
            self._teacher = self._portray("teacher", self.saved_teacher)
        return self._teacher

    def measure(self) -> dict[str, dict[int, Measured]]:
        """Measure what has not been measured, and return all by method, by seed; `portraits.json` keeps it.

        A network that was trained anew since, in the same place, is measured anew.
        """
        path = self.kept / "portraits.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        found: dict[str, dict[int, Measured]] = {}
        if self.saved_teacher is not None:
            identity = self.saved_teacher.sha256
            known = known if known.get("teacher") == identity else {"teacher": identity}
        for method, seeds in self.runs.items():
            for seed, folder in seeds.items():
                key, saved = f"{method}, seed {seed}", _last(folder)
                kept = known.get(key, {})
                if kept.get(_NETWORK) != saved.sha256:
                    kept = {_NETWORK: saved.sha256, **self._measured(self._portray(key, saved))}
                    known[key] = kept
                    write_json(path, known)
                found.setdefault(method, {})[seed] = {name: kept[name] for name in kept if name != _NETWORK}
        if self.teacher is not None:
            found = {"teacher": {0: self._measured(self.teacher)}, **found}
        return found

    def _measured(self, portrait: Portrait) -> Measured:
        values = {"position_mse": portrait.position.mse, "position_spearman": portrait.position.spearman}
        if self.teacher is None:
            return values
        distances = self.teacher.distances
        error = matrix_error(portrait.distances, distances)
        confused = near_confusion(portrait.confusion, near_pairs(distances))
        return {"class_distance_error": error, "near_confusion": confused, **values}

    def draw(self, methods: Sequence[str], samples: int) -> Path:
        """Draw the first seed of some methods beside the teacher: predictions, class distances, position."""
        saved = {} if self.saved_teacher is None else {"teacher": self.saved_teacher}
        saved |= {name: _last(next(iter(self.runs[name].values()))) for name in methods}
        portraits = {name: self._portray(name, each) for name, each in saved.items()}
        networks = {name: restore.student_from(each) for name, each in saved.items()}
        columns = comparison.sample_columns(
            {name: network.to(self.device).eval() for name, network in networks.items()},
            *(self.data, "val", self.device, samples),
        )
        return save(comparison.draw(portraits, columns, self.data), self.kept / "comparison.png")

    def _portray(self, name: str, saved: Saved) -> Portrait:
        network = restore.student_from(saved)
        return comparison.portray(name, network, self.data, "val", self.device, self.probe_steps, 0)


def _last(folder: Path) -> Saved:
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")


def markdown(measured: Mapping[str, Mapping[int, Measured]]) -> str:
    """Return a Markdown table: a row a method, mean and deviation over its seeds."""
    keys = [key for key in QUANTITIES if any(key in values for seeds in measured.values() for values in seeds.values())]
    lines = [f"| method | {' | '.join(QUANTITIES[key][0] for key in keys)} |", "| --- |" + " ---: |" * len(keys)]
    for name, seeds in measured.items():
        cells = [_cell([values[key] for values in seeds.values()], QUANTITIES[key][1]) for key in keys]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float], factor: float) -> str:
    spread = Spread.of([factor * value for value in values])
    digits = 2 if factor > 1 else 3 if abs(spread.mean) >= 0.05 else 4
    text = f"{spread.mean:.{digits}f}"
    return text if spread.deviation is None else f"{text} ± {spread.deviation:.{digits}f}"


def portray(runs: Mapping[str, Mapping[int, Path]], kept: Path, probe_steps: int, shown: Sequence[str]) -> str:
    """Measure the runs, draw some methods, keep tables and pictures in `kept`; return the table."""
    gallery = PortraitGallery(runs, kept, probe_steps)
    measured: Any = gallery.measure()
    table = markdown(measured)
    (kept / "portraits.md").write_text(table, encoding="utf-8")
    gallery.draw(shown, samples=4)
    return table
