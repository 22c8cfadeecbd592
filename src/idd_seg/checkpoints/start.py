"""A student that begins where another one has ended, perhaps with other classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from idd_seg.checkpoints.reader import STUDENT, Saved, differences
from idd_seg.errors import CheckpointError
from idd_seg.models.segmenter import Segmenter

CLASSIFIER, AUXILIARY = "classifier.", "auxiliary."


def start_from(student: Segmenter, saved: Saved, class_names: Sequence[str]) -> str:
    """Load a finished student's weights, and return in words what was taken.

    Of a classifier of other classes, or in another order, the rows of classes with the same names are taken; the others
    stay as they were drawn. An auxiliary head, which only training has, is taken if it fits.

    Raises:
        CheckpointError: if the file is of another network, or does not say what its classes are.
    """
    ours = student.state_dict()
    theirs = fitting(ours, saved)
    before = saved.class_names
    if before is None:
        raise CheckpointError(f"'{saved.path}' does not say what its classes are; was it written by idd_seg.train?")
    same = before == list(class_names)
    places = {name: place for place, name in enumerate(before)}
    rows = [(i, places[name]) for i, name in enumerate(class_names) if name in places]
    for key in [key for key in theirs if _of_classes(key, theirs[key], len(before))]:
        if same:
            continue
        made = ours[key].clone()
        for own, place in rows:
            made[own] = theirs[key][place]
        theirs[key] = made
    student.load_state_dict({**ours, **theirs})
    if same:
        return f"the student begins from '{saved.path}'"
    new = [name for name in class_names if name not in places]
    said = f", and {len(new)} are new: {', '.join(new)}" if new else ""
    return f"the student begins from '{saved.path}'; of its classes {len(rows)} are taken by their names{said}"


def fitting(ours: Mapping[str, Tensor], saved: Saved) -> dict[str, Tensor]:
    """Return the weights of a finished student that a network of these weights can begin from.

    Raises:
        CheckpointError: that names the first differences, if the file is of another network.
    """
    theirs = {k.removeprefix(STUDENT): v for k, v in saved.weights.items() if str(k).startswith(STUDENT)}
    count = len(saved.class_names or ())
    body = {k: v for k, v in ours.items() if not _of_classes(k, v, None) and not k.startswith(AUXILIARY)}
    found = {k: v for k, v in theirs.items() if not _of_classes(k, v, None) and not k.startswith(AUXILIARY)}
    problems = differences(found, body)
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"init_from='{saved.path}' is of another network than the student: {'; '.join(problems[:3])}{more}; take "
            "the network that it was trained with (student=, head@student.head=), as config.yaml of its run has it"
        )
    side = {k: v for k, v in theirs.items() if k.startswith(AUXILIARY)}
    fits = side.keys() == {k for k in ours if k.startswith(AUXILIARY)} and all(
        v.shape[1:] == ours[k].shape[1:] and (v.shape[:1] == ours[k].shape[:1] or _of_classes(k, v, count))
        for k, v in side.items()
    )
    classifier = {k: v for k, v in theirs.items() if _of_classes(k, v, None) and not k.startswith(AUXILIARY)}
    return {**found, **classifier, **(side if fits else {})}


def _of_classes(key: str, value: Tensor, count: int | None) -> bool:
    """Tell whether weights have a row a class: those of a classifier; with `count` only if there are so many rows."""
    of = key.startswith(CLASSIFIER) or (key.startswith(AUXILIARY) and key.split(".")[-3:-1] == ["1", "1"])
    return of and value.ndim > 0 and (count is None or len(value) == count)
