"""Write the rows of docs/performance.md that were measured on a GPU: `python scripts/write_performance.py`."""

from __future__ import annotations

from pathlib import Path

from idd_seg.benchmarks.gpu.page import read_results, table

TOP = Path(__file__).parents[1]
PAGE = TOP / "docs" / "performance.md"
RESULTS = TOP / "docs" / "results" / "gpu"
BEGIN = "<!-- written by scripts/write_performance.py from docs/results/gpu -->"
END = "<!-- to here -->"


def page(text: str, results: Path = RESULTS) -> str:
    """Return the page with the rows between its marks as the results have them."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"error: {PAGE} lacks the marks '{BEGIN}' and '{END}'")
    lines = "\n".join(table(read_results(results)))
    return f"{before}{BEGIN}\n\n{lines}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE)
