"""Each private name that ops/private_api.py binds to is there; where one is gone, the message says what fails."""

from __future__ import annotations

import ast
import inspect
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from torch import nn
from torch.utils.data import DataLoader

import idd_seg
from idd_seg.ops import private_api

ROOT = Path(idd_seg.__file__).parent


@pytest.fixture
def trainer(tmp_path: Path) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=3, default_root_dir=tmp_path
    )


class Small(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return DataLoader(torch.zeros(8, 1))  # type: ignore[arg-type]


class Signalled(L.Callback):
    """Asks for the end in the first batch, and notes whose handler of SIGTERM is installed."""

    def __init__(self) -> None:
        self.handler: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        private_api.leave_signals_alone(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)
        private_api.end_before_next_batch(trainer)


@pytest.mark.filterwarnings("ignore")
def test_a_signal_ends_a_run_between_two_batches(trainer: L.Trainer) -> None:
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    asked, before = Signalled(), signal.getsignal(signal.SIGTERM)
    trainer.callbacks.append(asked)  # type: ignore[attr-defined]
    with pytest.raises(SIGTERMException):
        trainer.fit(Small())
    message = "Lightning has changed {}: SIGTERM, ctrl-C and a cluster's warning would not end a run with a checkpoint"
    assert trainer.global_step == 1, message.format("_signal_connector.received_sigterm")
    assert asked.handler is before, message.format("_signal_connector.register_signal_handlers")
    private_api.give_back_signals(trainer)
    assert "register_signal_handlers" not in vars(trainer._signal_connector)


def test_what_is_asked_before_each_batch_is_called_there(trainer: L.Trainer) -> None:
    loop = trainer.fit_loop.epoch_loop
    gone = "of several processes one would go on alone after a signal"
    assert hasattr(type(loop), "_broadcast_sigterm_tensor"), gone
    assert "self._broadcast_sigterm_tensor" in inspect.getsource(type(loop)), gone
    called: list[int] = []
    private_api.call_before_each_batch(trainer, lambda: called.append(1))
    loop._broadcast_sigterm_tensor()
    assert called
    private_api.give_back_signals(trainer)
    assert "_broadcast_sigterm_tensor" not in vars(loop)


@pytest.mark.filterwarnings("ignore")
def test_batches_are_counted(trainer: L.Trainer) -> None:
    trainer.fit(Small())
    assert private_api.batches_done(trainer) == 3, "a run that goes on would begin with the wrong batch"


def test_a_checkpoint_of_our_own_writing_counts(tmp_path: Path) -> None:
    callback, gone = ModelCheckpoint(tmp_path), "a disk that is full would end the run at the best checkpoint"
    assert callable(ModelCheckpoint._save_checkpoint), gone
    assert {"_last_global_step_saved", "_last_checkpoint_saved"} <= vars(callback).keys(), gone
    private_api.note_saved(callback, 7, "best.ckpt")
    assert callback._last_global_step_saved == 7


def test_the_state_of_the_wandb_logger(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    logger = WandbLogger(save_dir=tmp_path, offline=False, id="abc")
    assert private_api.wandb_state(logger) == (None, False, "abc"), "logger=wandb could not go on without its server"
    private_api.set_wandb_offline(logger)
    private_api.set_wandb_run(logger, logger)
    assert private_api.wandb_state(logger) == (logger, True, "abc")
    assert {"_experiment", "_offline", "_id"} <= vars(logger).keys()


def test_modules_are_moved_and_cast_by_apply() -> None:
    calls = []

    class Watched(nn.Linear):
        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            calls.append(fn)
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    nn.Sequential(Watched(1, 1)).to(torch.float64)
    assert calls, "terms' discriminators, readers and memories would lose their precision with trainer.precision"


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_fused_optimizers_divide_by_the_loss_scale(kind: Any) -> None:
    gone = "gradients would be clipped while they are multiplied by the loss scale of float16"
    of = nn.Linear(1, 1).parameters
    assert private_api.divides_by_loss_scale(kind(of(), lr=0.1, fused=True)), gone
    assert not private_api.divides_by_loss_scale(kind(of(), lr=0.1))


def test_every_batch_norm_has_one_base() -> None:
    from torch.nn.modules.batchnorm import _BatchNorm

    gone = "trainer.sync_batchnorm would leave BatchNorms as they are"
    assert all(issubclass(norm, _BatchNorm) for norm in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)), gone
    assert callable(_BatchNorm._check_input_dim), gone


def test_graphs_take_maps_one_pixel_wide() -> None:
    from torch.fx.experimental import _config

    with private_api.sides_of_one():
        assert _config.backed_size_oblivious, 'a model.pt2 behind "same" padding would refuse small pictures'
    assert not _config.backed_size_oblivious


def test_loader_processes_are_known() -> None:
    loader = DataLoader(torch.zeros(4, 1), num_workers=1)  # type: ignore[arg-type]
    assert not private_api.loader_processes(loader)
    # Only a loader with persistent workers keeps its iterator, as those of this program do.
    loader = DataLoader(torch.zeros(4, 1), num_workers=1, persistent_workers=True)  # type: ignore[arg-type]
    batches = iter(loader)
    processes = private_api.loader_processes(loader)
    assert len(processes) == 1, "a loader process that was killed would end a run by a stack trace"
    assert all(process.is_alive() for process in processes)
    del batches


def test_what_a_job_returned_is_there_although_it_failed() -> None:
    error = ValueError("no")
    job = JobReturn()
    job.status, job._return_value = JobStatus.FAILED, error
    assert private_api.job_result(job) is error, "a search would end at its first trial that fails"
    assert "_return_value" in inspect.getsource(JobReturn.return_value.fget)  # type: ignore[attr-defined]


def test_a_trial_goes_on_by_its_id() -> None:
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study()
    trial = study.ask()
    again = optuna.trial.Trial(study, private_api.trial_id(study.trials[0]))
    assert again.number == trial.number, "a search could not go on with the trials that it was stopped in"


def test_transformers_tells_which_network_opens_a_configuration() -> None:
    transformers = pytest.importorskip("transformers")
    segments, gone = transformers.AutoModelForSemanticSegmentation, "teacher=huggingface would open nothing"
    assert private_api.opens(segments, transformers.SegformerConfig()), gone
    assert not private_api.opens(segments, transformers.BertConfig()), gone


def test_protocols_are_known() -> None:
    class Shape(Protocol):
        side: int

    assert private_api.is_protocol(Shape), "options whose type is a protocol of ours would be refused"
    assert not private_api.is_protocol(Small)


# Of Python's own, and public: a named tuple's copy, and an end without clean-up.
PUBLIC = {"_replace", "_exit"}


def private_names(path: Path) -> Iterator[str]:
    """Yield the private names that a file asks of anything but `self`, `cls` and `super()`, or imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = node.value
            own = isinstance(owner, ast.Name) and owner.id in ("self", "cls")
            parent = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
            if not own and not parent and node.attr not in PUBLIC:
                yield node.attr
        if isinstance(node, ast.ImportFrom):
            yield from (a.name for a in node.names if a.name.startswith("_") and not a.name.startswith("__"))
            yield from (part for part in str(node.module).split(".") if part.startswith("_") and part != "__future__")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_file_asks_for_private_names(path: Path) -> None:
    allowed = {"sync_batch_norm.py": {"_BatchNorm"}}.get(path.name, set())
    if path != Path(private_api.__file__):
        assert set(private_names(path)) <= allowed


def test_each_name_is_told_with_its_reason() -> None:
    told = str(private_api.__doc__)
    asked = {*private_names(Path(private_api.__file__)), "_BatchNorm", "_apply", "_check_input_dim", "_workers"}
    assert not {name for name in asked if f"`{name}`" not in told and f".{name}" not in told}
