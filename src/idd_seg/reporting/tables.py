"""The same numbers for other programs: CSV, a row a run; LaTeX, a row a group."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from idd_seg.reporting.groups import Group, Stat, gain_of, miou, pairs, stat

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "…": r"\ldots{}",
}


def csv_text(groups: Sequence[Group], keys: Sequence[str]) -> str:
    """Return a row a run. A cell that a spreadsheet would take for a formula gets an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fixed = ["run", "group", "seed", "state", "error", "miou_last", "miou_best", "gain_over_twin", "miou_teacher"]
    writer.writerow([_cell(c) for c in [*fixed, "parameters", "seconds", "images_per_s", *keys]])
    for group in groups:
        gains = {id(run): gain_of(run, twin) for run, twin in pairs(group)}
        for run in group.runs:
            best = run.best.miou if run.best else None
            row = [run.name, group.label, run.seed, run.state, run.error, miou(run), best]
            row += [gains.get(id(run)), group.teacher, run.parameters, run.seconds, run.images_per_s]
            writer.writerow([_cell(c) for c in [*row, *(run.options.get(key) for key in keys)]])
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str):
        # Spreadsheets calculate what begins so; the cells come from files of other people.
        return "'" + value if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
    return "" if value is None else value


def latex_text(groups: Sequence[Group]) -> str:
    """Return a booktabs table: mIoU and gain in percent, mean and sample standard deviation."""
    head = r"run & $n$ & mIoU, \% & best, \% & gain & parameters, $10^6$ \\"
    rows = [_row(group) for group in groups]
    return "\n".join(
        [r"\begin{tabular}{lrrrrr}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""]
    )


def _row(group: Group) -> str:
    last, best = stat(map(miou, group.runs)), stat(run.best.miou if run.best else None for run in group.runs)
    parameters = stat(run.parameters for run in group.runs)
    size = f"{parameters.mean / 1e6:.3g}" if parameters else "--"
    label = escape(group.label)
    return rf"{label} & {last.n if last else 0} & {_share(last)} & {_share(best)} & {_share(group.gain)} & {size} \\"


def _share(found: Stat | None) -> str:
    if found is None:
        return "--"
    spread = "" if found.std is None else rf" \pm {100 * found.std:.2f}"
    return f"${100 * found.mean:.2f}{spread}$"


def escape(text: str) -> str:
    """Return text that LaTeX prints as it is; control characters become spaces."""
    return "".join(LATEX.get(sign, sign if sign.isprintable() else " ") for sign in text)
