"""Libraries that say more of their own state than a user wants to know."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Leave out what loggers of these names say below errors, all warnings, and what is printed."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def quieten() -> None:
    """Leave out what Lightning says at every start, and no more."""
    for name in ("lightning.pytorch", "lightning.fabric", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*_register_pytree_node.*")
    # A run by itself on a cluster's machine is one process on purpose.
    warnings.filterwarnings("ignore", message=".*srun. command is available on your system but is not used.*")
    # A short run logs its last step at the latest.
    warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
    # The confusion matrix is summed over the processes before anything is logged of it.
    warnings.filterwarnings("ignore", message=".*It is recommended to use .self.log.*sync_dist=True.*")
    # A run that goes on begins at the batch that comes next, in the folder where it stopped.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    # The teacher is in evaluation mode on purpose, and a run folder holds its configuration before the first metric.
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", message=".*Experiment logs directory.*exists and is not empty.*")
