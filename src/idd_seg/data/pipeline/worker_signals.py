"""Signals in loader processes: those that are meant for the run are left to the training process."""

from __future__ import annotations

import os
import signal
import threading


def leave_signals_to_the_run() -> None:
    """Let this loader process outlive what stops the run, so that the run can finish its step.

    Batch systems, `timeout` and terminals send their signal to all processes of a group. SIGTERM is heard from the
    training process alone, by which multiprocessing ends its loader processes; where the system does not tell who has
    sent a signal (macOS), SIGTERM of anybody ends this process.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if not hasattr(signal, "sigwaitinfo"):
        return
    # Blocked in every thread that begins after this one, so that the signal waits for the thread that asks for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    # Exit code 0: the training process takes any other for a loader process that failed.
    os._exit(0)
