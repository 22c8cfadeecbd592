"""What this program takes of other packages beneath their public surface: all of it, in one place.

A name below may go with any release: pyproject.toml bounds these packages, and `tests/ops/test_private_api.py` asks for
each name and says what fails without it. The functions import nothing, so that the command line need not wait.

lightning, for `callbacks.graceful_stop`:

- `Trainer._signal_connector.received_sigterm`: the one flag that ends a run between two batches, by `SIGTERMException`;
  `should_stop` would end it as if it were complete.
- `Trainer._signal_connector.register_signal_handlers`: Lightning puts its handlers after all hooks, over those of the
  program, and no option leaves them out.
- `Trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor`: its message waits for the GPU at each batch, and no hook that
  all processes call stands in its place.

lightning, for others:

- `Trainer.fit_loop.epoch_loop.batch_progress.total.processed` (`callbacks.checkpoint`, `data.pipeline.datamodule`): the
  batches of the whole training, restored with a checkpoint; `global_step` counts optimizer steps.
- `ModelCheckpoint._save_checkpoint`, overridden, `_last_global_step_saved` and `_last_checkpoint_saved`
  (`callbacks.checkpoint`): a full disk must not end the run, and no hook stands around the writing.
- `WandbLogger._experiment`, `_offline` and `_id` (`loggers.wandb_run`): its own `experiment` opens a run without a time
  limit and raises; its other methods read what it holds.

torch:

- `nn.Module._apply`, overridden (`ops.precision`): `to`, `half` or `cuda` of a module call nothing else of
  its children.
- `nn.modules.batchnorm._BatchNorm` and its `_check_input_dim`, overridden (`distributed.sync_batch_norm`): the base of
  the BatchNorms of all numbers of dimensions; PyTorch's synchronised one refuses a CPU.
- `fx.experimental._config.backed_size_oblivious` (`exporting.export`): without it a graph behind "same" padding refuses
  maps that are one pixel wide; PyTorch before 2.7 has no such switch.
- `Optimizer._step_supports_amp_scaling` (`distillation.clipping`): whether it divides by the loss scale itself as it
  steps, which Lightning reads there, too.
- `DataLoader._iterator`, and its `_workers` (`data.pipeline.worker_timeout`): whether a loader process was killed can't
  be asked otherwise.

Others:

- hydra-core, `JobReturn._return_value` (`sweeps.report`): `return_value` raises the job's error, and prints it.
- optuna, `FrozenTrial._trial_id` (`sweeps.study`): a stored trial goes on as a `Trial` that is made from its id.
- transformers, `AutoModelForSemanticSegmentation._model_mapping` and its sister's (`models.foreign.huggingface`): which
  of the two opens a configuration, before either tries.
- Python, `Protocol._is_protocol` (`config.option_types`): `typing.is_protocol` came with Python 3.13.

OmegaConf needs none: with `OmegaConf.create(node, parent=...)` a part's interpolations find what is around it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any


def end_before_next_batch(trainer: Any) -> None:
    """Let Lightning raise its `SIGTERMException` between two batches."""
    trainer._signal_connector.received_sigterm = True


def leave_signals_alone(trainer: Any) -> None:
    """Keep Lightning from putting handlers of its own before those of the program."""
    trainer._signal_connector.register_signal_handlers = _nothing


def call_before_each_batch(trainer: Any, agree: Callable[[], None]) -> None:
    """Call `agree` in all processes before each batch, in place of Lightning's message about SIGTERM."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = agree


def give_back_signals(trainer: Any) -> None:
    """Undo `leave_signals_alone` and `call_before_each_batch`."""
    vars(trainer._signal_connector).pop("register_signal_handlers", None)
    vars(trainer.fit_loop.epoch_loop).pop("_broadcast_sigterm_tensor", None)


def _nothing() -> None:
    """Register no handler."""


def batches_done(trainer: Any) -> int:
    """Return how many batches the whole training has seen, those before a stop included."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)


def note_saved(checkpoint: Any, step: int, path: str) -> None:
    """Tell a `ModelCheckpoint` that its file is written, as its own `_save_checkpoint` would."""
    checkpoint._last_global_step_saved = step
    checkpoint._last_checkpoint_saved = path


def wandb_state(logger: Any) -> tuple[Any, bool, str | None]:
    """Return the open run of a `WandbLogger` or None, whether it is to be offline, and the id that it was given."""
    return logger._experiment, bool(logger._offline), logger._id


def set_wandb_run(logger: Any, run: Any) -> None:
    """Let a `WandbLogger` log to an open run."""
    logger._experiment = run


def set_wandb_offline(logger: Any) -> None:
    """Let a `WandbLogger` know that its run is offline."""
    logger._offline = True


def loader_processes(loader: Any) -> Sequence[Any]:
    """Return the processes of a `DataLoader` that is being iterated over; none if it has none."""
    return getattr(loader._iterator, "_workers", ())


def divides_by_loss_scale(optimizer: Any) -> bool:
    """Tell whether an optimizer divides gradients by the loss scale of float16 itself: a fused one."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


@contextlib.contextmanager
def sides_of_one() -> Iterator[None]:
    """Let `torch.export` write graphs that take maps one pixel wide too, where this PyTorch can."""
    from torch.fx.experimental import _config

    config: Any = _config
    if not hasattr(config, "backed_size_oblivious"):
        yield
        return
    with config.patch(backed_size_oblivious=True):
        yield


def job_result(job: Any) -> Any:
    """Return what a job of Hydra returned, or the exception that ended it."""
    return job._return_value


def trial_id(trial: Any) -> int:
    """Return the number by which a storage of Optuna knows a trial."""
    return int(trial._trial_id)


def opens(auto_model: Any, config: Any) -> bool:
    """Tell whether an `AutoModelFor...` of transformers has a network for a configuration."""
    return type(config) in auto_model._model_mapping


def is_protocol(kind: Any) -> bool:
    """Tell whether a class is a `Protocol`."""
    return bool(getattr(kind, "_is_protocol", False))
