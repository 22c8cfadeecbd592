"""`python -m idd_seg.report DIR...`: one HTML page on any runs and sweeps."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence, Sized
from pathlib import Path

from idd_seg.errors import UserError, printable


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m idd_seg.report",
        description="Make one self-contained HTML page of training runs: table, curves, classes, pictures.",
        epilog="Example: python -m idd_seg.report outputs --out report.html --csv report.csv",
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", type=Path, help="a run, a sweep, or a folder above them")
    parser.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page (%(default)s)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a CSV table, a row a run")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="also write a LaTeX table (booktabs), a row a group")
    parser.add_argument("--title", default="Runs", help="heading of the page (%(default)s)")
    parser.add_argument(
        "--pictures",
        type=int,
        default=12,
        metavar="N",
        help="runs whose pictures and matrices are embedded, the best first; 32 MiB at most (%(default)s)",
    )
    parser.add_argument(
        "--worst",
        type=int,
        default=4,
        metavar="N",
        help="pictures of each of these runs that are worst, most improved and most worsened (%(default)s)",
    )
    found = parser.parse_args(words)
    for name in ("pictures", "worst"):
        if getattr(found, name) < 0:
            parser.error(f"argument --{name}: must be at least 0, got {getattr(found, name)}")
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Write the page and the tables that are asked for.

    Raises:
        UserError: for folders without runs, and for files that can't be written.
    """
    from idd_seg.reporting import tables
    from idd_seg.reporting.content import make_content
    from idd_seg.reporting.finding import find_runs
    from idd_seg.reporting.groups import make_groups
    from idd_seg.reporting.page import make_page
    from idd_seg.reporting.runs import read_run
    from idd_seg.reporting.teacher import Teachers

    options = arguments(words)
    outputs = [path for path in (options.out, options.csv, options.latex) if path is not None]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise UserError("--out, --csv and --latex must name different files")
    folders, notes = find_runs(options.folders)
    runs = [read_run(folder, str(folder)) for folder in folders]
    groups, keys = make_groups(runs, Teachers(runs).miou_of)
    title = printable(options.title)
    content = make_content(title, groups, keys, notes, options.pictures, options.worst)
    written = {options.out: make_page(title, content)}
    if options.csv:
        written[options.csv] = tables.csv_text(groups, keys)
    if options.latex:
        written[options.latex] = tables.latex_text(groups)
    for path, text in written.items():
        write(path, text)
    unwell = sum(run.state != "finished" for run in runs)
    found = f"{_counted(runs, 'run')} ({unwell} not finished) in {_counted(groups, 'group')}"
    print(f"{found}: {', '.join(map(str, written))}")


def _counted(things: Sized, word: str) -> str:
    return f"{len(things)} {word}" if len(things) == 1 else f"{len(things)} {word}s"


def write(path: Path, text: str) -> None:
    """Write beside the target and rename, so that no half page is ever seen.

    Raises:
        UserError: if the place can't be written to.
    """
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; name a file")
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            umask = os.umask(0)
            os.umask(umask)
            Path(draft).chmod(0o666 & ~umask)
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"can't write '{path}': {error.strerror or error}; choose another place") from error


if __name__ == "__main__":
    try:
        main()
    except UserError as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
