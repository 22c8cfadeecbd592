"""Two processes train together; the trial tells rank zero to stop at the second validation, and rank one nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from idd_seg.callbacks.pruning import Pruning
from idd_seg.errors import Pruned
from tests.sweeps.test_pruning import Rising, fit


class Told:
    """Stands for Optuna's trial; writes down which rank reports."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def report(self, value: float, step: int) -> None:
        self.count += 1
        with (self.folder / "reports").open("a") as file:
            file.write(f"{os.environ.get('LOCAL_RANK', '0')}\n")

    def should_prune(self) -> bool:
        return self.count == 2


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        fit(Rising(0.1), Pruning(Told(place), "val/mIoU"), strategy="ddp", devices=2, num_sanity_val_steps=0)  # type: ignore[arg-type]
    except Pruned as error:
        (place / f"rank{os.environ.get('LOCAL_RANK', '0')}").write_text(str(error))
