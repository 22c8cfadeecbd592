"""Tests of which the quick run takes a share, another one with each commit; `make test-full` takes all.

Each is one of many of its kind that take seconds. A kind is dealt out in as many parts as its share says, and a commit
takes one of them: with as many tests as parts, or more, the kind is in each run, and each test in one of so many.
`DRAW=N` repeats the draw of a commit (the run's first line names it), `DRAW=all` takes all.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

TOP = Path(__file__).parents[1]

# Beginnings of test ids below tests/ -> one in so many is taken. `*` behind one: its tests are taken together.
SHARES = {
    "test_docs.py::test_command": 16,
    "test_cli.py::test_a_mistake_gets_one_clear_error": 4,
    "test_cli.py::test_every_command_has_help": 3,
    "test_cli.py::test_a_value_that_needs_quotes": 3,
    "test_cli.py::test_grammar_is_explained": 3,
    "test_cli.py::test_a_file_that_would_call_something": 2,
    "test_cli.py::test_an_unusable_checkpoint": 2,
    "test_cli.py::test_a_broken_file_is_named": 2,
    "test_distributed.py::test_a_signal_ends_all": 3,
    "test_import_checkpoint.py::test_a_mistake_writes_nothing": 3,
    "test_multirun.py*": 3,
    "test_signals.py": 5,
    "test_templates.py*": 3,
    "test_training.py::test_a_stored_configuration": 3,
    "test_training.py::test_a_signal_ends_the_run": 2,
    "benchmarks/test_model.py": 4,
    "config/test_composition.py::test_every_choice_composes": 3,
    "config/test_composition.py::test_every_part_composes": 3,
    "config/test_trainer_options.py::test_a_refused": 4,
    "config/test_trainer_options.py::test_a_value_with_no_sense": 3,
    "config/test_trainer_options.py::test_scores_of_a_part": 2,
    "config/test_unread.py": 3,
    "data/test_cache.py::test_samples_are_the_same": 3,
    "data/test_worker_timeout.py::test_what_does_not_come": 3,
    "distributed/test_sync_batch_norm.py*": 2,
    "evaluation/test_inference.py::test_two_processes": 3,
    "exporting/test_command.py::test_without_the_packages": 3,
    "exporting/test_graph.py::test_every_head": 3,
    "exporting/test_winograd.py::test_layers_of_a_file": 3,
    "losses/test_world_idd.py*": 2,
    "losses/test_world.py*": 2,
    "runs/test_data_files.py::test_a_run_does_not_go_on": 4,
    "runs/test_data_files.py::test_a_finished_run": 2,
    "runs/test_allocator.py": 2,
    "exporting/test_hub.py::test_what": 3,
    "exporting/test_web_page.py": 2,
    "callbacks/test_fake_quantisation.py::test_a_student": 3,
    "losses/test_adversarial.py::test_a_student_learns": 3,
    "models/test_students.py": 2,
    "models/test_any_backbone.py": 2,
    "runs/test_data_files.py::test_a_kept_teacher": 3,
    "sweeps/test_launchers.py": 3,
    "sweeps/test_optuna.py": 3,
    "sweeps/test_submitit_slurm.py": 2,
    "test_determinism.py*": 2,
    "test_foreign_teachers.py::test_a_mistake": 3,
    "test_library.py::test_the_examples": 2,
    "test_prepare.py": 2,
    "test_reliability.py": 2,
    "test_resume.py::test_a_run_that_was_killed": 2,
    "config/test_preflight.py": 3,
    "distillation/test_gradient_balance.py::test_norms": 3,
    "loggers/test_loggers.py*": 2,
    "losses/test_adversarial.py::test_discriminators": 3,
    "losses/test_cirkd_memory.py::test_all_ranks": 3,
    "models/test_weights.py::test_right_weights": 3,
    "prediction/test_label.py": 2,
    "reporting/test_command.py": 2,
    "studies/test_course.py": 2,
    "test_weights_over_time.py::test_parameters_that_a_stopped": 3,
    "callbacks/test_sample_gallery.py*": 2,
    "evaluation/test_cases.py::test_names_of_classes": 3,
    "exporting/test_graph.py::test_pictures_are_scaled": 3,
    "exporting/test_hub.py::test_a_refusal": 3,
    "exporting/test_hub.py::test_a_hub_that": 3,
    "data/test_worker_timeout.py::test_a_stop_of_all": 3,
    "api/test_programs.py::test_a_wrong_option": 3,
    "api/test_programs.py::test_what_can_not_be_distilled": 3,
    "config/test_composition.py::test_a_teacher_of_another_recipe": 3,
    "config/test_composition.py::test_every_part_is_taken_in": 3,
    "config/test_composition.py::test_every_term_has_a_flat_weight": 3,
    "config/test_composition.py::test_the_students_options_do_not_touch": 3,
    "config/test_composition.py::test_twins_differ": 3,
    "config/test_option_types.py::test_every_choice": 3,
    "distillation/test_teacher_cache_identity.py::test_what_changes": 3,
    "test_docs.py::test_a_training_composes": 4,
    "test_training.py::test_a_teacher_from_a_file": 3,
    "test_training.py::test_a_teacher_of_this_program": 2,
    "test_training.py::test_a_wrong_beginning": 3,
    "test_training.py::test_compare_takes_another_teacher": 2,
    "test_unlabelled_runs.py::test_a_mistake": 3,
    "test_evaluate.py": 3,
    "reporting/test_page.py": 3,
    "config/test_lengths.py": 2,
    "models/foreign/test_packages.py": 2,
    "config/test_chosen_terms.py": 3,
    "test_training.py::test_a_student_begins_where": 2,
}
# The longest, side by side by what they are about: a commit takes one line of each.
TURNS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (  # runs of two processes
        (
            "test_distributed.py::test_two_processes",
            "test_distributed.py::test_no_column",
            "test_distributed.py::test_evaluation_by_two_processes",
            "test_distributed.py::test_rank_zero_alone",
        ),
        ("test_distributed.py::test_processes_may_train_by_features",),
        ("test_distributed.py::test_a_signal_to_the_run",),
    ),
    (
        (
            "test_distributed.py::test_trouble_of_one_process",
            "test_distributed.py::test_a_mistake_that_one_process",
        ),
        ("test_distributed.py::test_torchrun_makes_one_run",),
    ),
    (  # many runs, one after the other
        ("chaos/test_campaign.py::test_a_sample",),
        ("sweeps/test_train.py::test_a_search",),
        ("test_training.py::test_a_sweep",),
    ),
    (  # what a page shows
        ("test_docs.py::test_command[python -m idd_seg.train data=voc student=r18 loss.idd_weight=0.5]",),
        ("test_library.py::test_the_first_example",),
    ),
)
# Of a kind, what is never left out: the plainest.
KEPT = ("test_command[python -m idd_seg.train]",)


@cache
def draw() -> str:
    """Return what the draw follows from: the commit, or what DRAW says."""
    if given := os.environ.get("DRAW"):
        return given
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=TOP, capture_output=True, text=True, timeout=60)
    return git.stdout.strip()[:8] or "0"


def left_out(names: Iterable[str]) -> set[str]:
    """Return which of these tests, by their ids below tests/, do not belong to the quick run of this commit."""
    if draw() == "all":
        return set()
    out: set[str] = set()
    shared: dict[str, list[str]] = {}
    for name in names:
        if (turn := _turn_of(name)) is not None:
            number, line = turn
            if line != _number(f"turn {number}") % len(TURNS[number]):
                out.add(name)
        elif (start := _start_of(name)) is not None and not name.endswith(KEPT):
            shared.setdefault(start, []).append(name)
    for start, found in shared.items():
        out |= _not_drawn(start, found)
    return out


def _not_drawn(start: str, names: Sequence[str]) -> set[str]:
    """Deal the tests of a kind out in parts, and return those of all parts but one."""
    share, part = SHARES[start], _number(start) % SHARES[start]
    if start.endswith("*"):
        return set(names) if part else set()
    # Dealt in an order without meaning: neighbours in a table are much alike.
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return {name for place, name in enumerate(order) if place % share != part}


def _number(key: str) -> int:
    return int(hashlib.sha256(f"{draw()}/{key}".encode()).hexdigest(), 16)


def _start_of(name: str) -> str | None:
    return next((start for start in SHARES if name.startswith(start.removesuffix("*"))), None)


def _turn_of(name: str) -> tuple[int, int] | None:
    """Return the turn that a test belongs to, and its line there."""
    for number, lines in enumerate(TURNS):
        for place, starts in enumerate(lines):
            if name.startswith(starts):
                return number, place
    return None
