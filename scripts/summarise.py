"""Mean and spread over seeds: `python scripts/summarise.py twin=FOLDER,FOLDER student=FOLDER,FOLDER`.

Reads `metrics.json` of run folders of idd_seg.train and prints a Markdown table of the last validation's mIoU in
percent; every name after the first also gets its gain, run by run, over the first.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path


def miou(folder: str) -> float:
    """Return the last validation's mIoU of a run, in percent."""
    path = Path(folder) / "metrics.json"
    try:
        return 100 * float(json.loads(path.read_text(encoding="utf-8"))["last"]["miou"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: '{path}' is not the metrics.json of a finished run ({type(error).__name__}: {error})")


def spread(values: list[float]) -> str:
    """Format mean and standard deviation; one value has no deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def main(arguments: list[str]) -> None:
    """Print the table of `NAME=FOLDER,FOLDER` arguments."""
    if not arguments or not all("=" in argument for argument in arguments):
        sys.exit("error: usage: python scripts/summarise.py twin=FOLDER,FOLDER student=FOLDER,FOLDER")
    runs = {a.partition("=")[0]: [miou(f) for f in a.partition("=")[2].split(",")] for a in arguments}
    first, base = next(iter(runs.items()))
    print(f"| | runs | mIoU, % | gain over {first} |\n| --- | ---: | ---: | ---: |")
    for name, values in runs.items():
        pairs = [a - b for a, b in zip(values, base, strict=False)] if len(values) == len(base) else []
        gain = spread(pairs) if name != first and pairs else "-"
        print(f"| {name} | {len(values)} | {spread(values)} | {gain} |")


if __name__ == "__main__":
    main(sys.argv[1:])
