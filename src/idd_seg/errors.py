"""Errors that are the user's to mend: each says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the input (option, file, data). Shown as one message, without a stack trace."""


class ConfigError(UserError):
    """An option that is unknown, contradictory or out of range."""


class DataError(UserError):
    """A data set, an image or a label that can't be used."""


class MissingDataError(DataError):
    """A folder or list of a data set that is not there at all."""


class CheckpointError(UserError):
    """A checkpoint or weight file that is missing, damaged, hostile or of another network."""


class NonFiniteError(UserError):
    """A loss that is NaN or infinite."""


class RunFolderError(UserError):
    """A run folder that is in use, or that holds another run."""


class TimeUp(UserError):  # noqa: N818 - as below
    """A run that stops since its time is up; it can go on."""


class Pruned(Exception):  # noqa: N818 - as below
    """A run that its sweep has given up, because others did better by the same step."""


class JobFailed(Exception):  # noqa: N818 - what has happened, not what is wrong with the call
    """A job of a sweep that has failed, which has been said; the others go on."""


def printable(text: str) -> str:
    """Return text that can be written as UTF-8: file names may hold bytes that are none."""
    return text.encode("utf-8", "backslashreplace").decode()


def first_line(error: BaseException) -> str:
    """Return the beginning of another library's message, or the error's class where it has none.

    PyTorch's advice to read a file with `weights_only=False`, which would call what the file names, is left out.
    """
    text = str(error).strip()
    if "weights_only" in text or "weights only" in text.lower():
        named = re.search(r"(?:GLOBAL|[Uu]nsupported (?:class|operand|operation)) ([\w.]+)", text)
        return f"it names {named[1]}" if named else type(error).__name__
    return (text or type(error).__name__).splitlines()[0][:200]


def suggest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return `; did you mean 'x'?` for the nearest known name, or a full stop."""
    near = difflib.get_close_matches(word, [name for name in known if name != word], n=1, cutoff=cutoff)
    return f"; did you mean '{near[0]}'?" if near else "."


def message_of(error: BaseException) -> str:
    """Return the message alone, also when a loader's worker wrapped it in its own stack trace.

    PyTorch re-raises a worker's exception with the worker's traceback as text; the last line of it that names
    the exception's class starts the message.
    """
    text = str(error)
    marker = f"{type(error).__name__}: "
    if "Original Traceback" in text and marker in text:
        text = text.rsplit(marker, 1)[1]
    return text.strip()
