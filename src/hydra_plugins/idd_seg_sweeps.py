"""Sweepers and launchers, where Hydra looks for them: it takes plugins from the package `hydra_plugins` alone.

Hydra imports this at every start, so that nothing heavy or optional may be imported here.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin

from idd_seg.sweeps import launchers, optuna


class OptunaSweeper(optuna.OptunaSweeper):
    """hydra/sweeper=optuna"""


class JoblibLauncher(launchers.JoblibLauncher):
    """hydra/launcher=joblib"""


class SubmititLocalLauncher(launchers.SubmititLocalLauncher):
    """hydra/launcher=submitit_local"""


class SubmititSlurmLauncher(launchers.SubmititSlurmLauncher):
    """hydra/launcher=submitit_slurm"""


class OwnFilesFirst(SearchPathPlugin):
    """Lets `hydra/launcher/joblib.yaml` of a program stand for itself.

    Hydra would merge it with what the joblib plugin registered by the same name, whose options are others. Programs
    that have no such file are left alone.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        folders = [Path(str(element.path).removeprefix("file://")) for element in search_path.get_path()]
        for group in ("launcher", "sweeper"):
            registered = ConfigStore.instance().repo.get("hydra", {}).get(group, {})
            for name in list(registered):
                if any((folder / "hydra" / group / name).is_file() for folder in folders):
                    del registered[name]
