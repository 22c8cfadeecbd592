"""Checking a data set: a report of every split, tables, and a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from idd_seg.data.pipeline.datamodule import UNLABELLED, SegmentationDataModule
from idd_seg.data.pipeline.label_check import in_both
from idd_seg.dataset_check.contact_sheet import contact_sheet
from idd_seg.dataset_check.scan import SplitReport, scan
from idd_seg.errors import ConfigError, DataError, MissingDataError, printable
from idd_seg.plotting.figures import save
from idd_seg.runs.provenance import write_json

NEEDED = ("train", "val")
OPTIONAL = "test"  # not every data set has it, and the default asks for it
SHOWN = 20  # problems that are printed; the report holds all


def check(
    data: SegmentationDataModule, splits: Sequence[str], workers: int, samples: int, seed: int, folder: Path
) -> None:
    """Scan the splits, and the pictures without labels where there are some.

    Writes `report.json` and a contact sheet of each into `folder`, and prints what was found.

    Raises:
        ConfigError: for a split that the data set does not have; `test` is left out where others are asked for, too.
        DataError: after the report, if anything is wrong; says how much and where it is listed.
    """
    present = [split for split in splits if split in data.splits]
    if present and data.unlabelled is not None:
        present.append(UNLABELLED)
        splits = [*splits, UNLABELLED]
    if unknown := [split for split in splits if split not in present and not (present and split == OPTIONAL)]:
        raise ConfigError(f"data={data.name} has no split '{unknown[0]}'; it has {', '.join(data.splits)}")
    if len(present) < len(splits):
        print(f"split '{OPTIONAL}' is left out: data={data.name} has none")
    reports = {}
    for split in present:
        if split not in (*NEEDED, UNLABELLED) and not _is_there(data, split):
            continue
        reports[split] = scan(data, split, workers)
        if reports[split].length and (sheet := contact_sheet(data, split, samples, seed)):
            save(sheet, folder / f"{split}.png")
    if {"train", "val"} <= reports.keys() and (both := in_both(data)):
        reports["val"].warnings.append(printable(both))
    path = folder / "report.json"
    write_json(path, {split: report.as_dict(data.class_names) for split, report in reports.items()})
    print_report(data, reports)
    print(f"report and contact sheets: {folder}")
    problems = sum(len(report.problems) for report in reports.values())
    if problems:
        raise DataError(f"data={data.name}: {problems} problem{'s' if problems > 1 else ''}; all of them are in {path}")


def _is_there(data: SegmentationDataModule, split: str) -> bool:
    try:
        data.dataset(split)
    except MissingDataError as error:
        print(printable(f"split '{split}' is left out: {error}"))
        return False
    except DataError:
        pass  # the scan reports it
    return True


def print_report(data: SegmentationDataModule, reports: Mapping[str, SplitReport]) -> None:
    """Print items, sizes, and the share of pixels and of images of each class, and the first problems."""
    table = Table(title=f"data={data.name}", title_justify="left")
    table.add_column("")
    for split, report in reports.items():
        table.add_column(f"{split}\npixels, %", justify="right")
        table.add_column(f"{report.length} items\nimages, %", justify="right")
    for i, name in enumerate([*data.class_names, "(ignored)"]):
        cells = []
        for report in reports.values():
            cells += [
                _share(report.pixels[i], report.pixels.sum()),
                _share(report.images[i], sum(report.sizes.values())),
            ]
        table.add_row(escape(name), *cells)
    console = Console()
    console.print(table)
    for split, report in reports.items():
        sizes = [f"{width} x {height} ({n})" for (height, width), n in report.sizes.most_common(3)]
        more = f" and {len(report.sizes) - 3} more" if len(report.sizes) > 3 else ""
        console.print(f"{split}: sizes {', '.join(sizes) or '-'}{more}")
        if report.channels is not None and split == "train":  # what is judged is normalised alike
            console.print(f"{split}: {report.channels.options()}", soft_wrap=True, highlight=False, markup=False)
        for problem in report.problems[:SHOWN]:
            console.print(f"  [red]bad:[/red] {escape(problem)}", soft_wrap=True, highlight=False)
        if len(report.problems) > SHOWN:
            console.print(f"  and {len(report.problems) - SHOWN} more")
        for warning in report.warnings[:SHOWN]:
            console.print(f"  [yellow]look:[/yellow] {escape(warning)}", soft_wrap=True, highlight=False)


def _share(part: int, whole: int) -> str:
    return "-" if whole == 0 or part == 0 else f"{100 * part / whole:.2f}"
