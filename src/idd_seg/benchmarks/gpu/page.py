"""The results of a GPU as rows of a table in Markdown. What is not there says so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from idd_seg.benchmarks.bars import GPU_MEMORY, GPU_RATE, GPU_SPEED

Found = Mapping[str, Mapping[str, Any]]  # by part
UNMEASURED = "unmeasured"
PARTS = ("step", "losses", "data", "tests", "determinism", "resume", "study")


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the files of a folder by part, without those of rehearsals, which measure nothing."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return {name: one for name, one in found.items() if one["machine"]["device"] == "cuda" and not one["tiny"]}


def table(found: Found) -> list[str]:
    """Return the lines: by which machine, and a row for each figure."""
    rows = [*_step(found), *_barred(found), *_repeats(found), *_study(found)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [*_machines(found), "", "| what | measured | bar |", "| --- | ---: | ---: |", *lines]


def _machines(found: Found) -> Iterator[str]:
    """Say once for each card, driver, version and commit what was measured there."""
    if not found:
        yield "No GPU has been measured."
    said: dict[str, list[str]] = {}
    for name, one in found.items():
        machine, git = one["machine"], one["machine"].get("git") or {}
        commit = str(git.get("commit") or "unknown")[:7] + (", changed" if git.get("changed") else "")
        software = f"driver {machine['driver']}, torch {machine['versions']['torch']}"
        day = str(one["begun"] or "no date")[:10]
        said.setdefault(f"{machine['gpu']}, {software}; commit {commit}; {day}", []).append(name)
    for machine_text, names in said.items():
        yield f"{machine_text}: {', '.join(f'`{name}`' for name in names)}."


def _result(found: Found, part: str) -> Mapping[str, Any]:
    result: Mapping[str, Any] = found.get(part, {}).get("result", {})
    return result


def _nothing(found: Found, part: str) -> str:
    """Say that there is no figure, and how its part has ended, if it has begun."""
    one = found.get(part)
    if one is None or one["state"] in ("finished", "waiting"):
        return UNMEASURED
    reason = one["why"] or "" if one["state"] == "left out" else ""
    return f"{UNMEASURED} ({one['state']}{': ' if reason else ''}{reason})"


def _step(found: Found) -> Iterator[Sequence[str]]:
    sizes = _result(found, "step").get("sizes", [])
    ways = dict(sizes[0]["ways"]) if sizes else {}
    yield from _added(sizes, ways)
    for name in list(ways)[1:] or ["all settings on"]:
        speed = rate = memory = _nothing(found, "step")
        size = ""
        if name in ways:
            first, way = ways[next(iter(ways))], ways[name]
            took, before = way["seconds"]["median"], first["seconds"]["median"]
            size = f", {sizes[0]['batch']} x {sizes[0]['size'][0]} x {sizes[0]['size'][1]}"
            speed = f"{before / took:.2f} x: {1e3 * took:.0f} against {1e3 * before:.0f} ms"
            done, most = sizes[0]["flops"] / took, sizes[0]["rates"]["bfloat16"]
            rate = f"{100 * done / most:.0f} %: {done / 1e12:.0f} of {most / 1e12:.0f} T/s"
            memory = f"{way['peak_memory'] / first['peak_memory']:.2f} x: {way['peak_memory'] / 1e9:.1f} GB"
        yield f"a distillation step{size}, {name}, against float32 as written", speed, f">= {GPU_SPEED:g} x"
        yield f"its share of the bfloat16 rate of a matrix product, {name}", rate, f">= {100 * GPU_RATE:.0f} %"
        yield f"its peak memory, {name}, against float32 as written", memory, f"<= {GPU_MEMORY:g} x"


def _added(sizes: Sequence[Mapping[str, Any]], ways: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Say what trainer, logging and the terms beyond cross-entropy are of the first way's step."""
    name = next(iter(ways), "")
    parts, bare = (ways.get(name, {}).get(key) for key in ("parts", "bare_parts"))
    if not parts:
        return
    added, whole = parts["rest"] + max(0.0, parts["terms"] - bare["terms"]), sum(parts.values())
    size = f"{sizes[0]['batch']} x {sizes[0]['size'][0]} x {sizes[0]['size'][1]}"
    measured = f"{100 * added / whole:.1f} %: {1e3 * added:.0f} of {1e3 * whole:.0f} ms"
    yield f"trainer, logging and terms beyond cross-entropy in a distillation step, {size}, {name}", measured, ""


def _barred(found: Found) -> Iterator[Sequence[str]]:
    for part, what in (
        ("losses", "terms against loops and the memory's rate"),
        ("data", "samples against albumentations"),
    ):
        rows = [row for row in _result(found, part).get("rows", []) if row["reached"] is not None]
        reached = sum(bool(row["reached"]) for row in rows)
        measured = f"{reached} of {len(rows)} bars reached" if rows else _nothing(found, part)
        yield f"`benchmark {part}`: {what}", measured, "all"


def _repeats(found: Found) -> Iterator[Sequence[str]]:
    tests = _result(found, "tests")
    counted = ", ".join(f"{number} {what}" for what, number in tests.items())
    yield "tests that need a GPU", counted or _nothing(found, "tests"), "none fails"
    for way in ("float32", "fast"):
        one = _result(found, "determinism").get(way)
        measured = _nothing(found, "determinism") if one is None else _same(one)
        yield f"two runs with `deterministic=true`, {way}", measured, "the same weights"
    resume = _result(found, "resume")
    yield (
        "a run that was stopped and goes on",
        _same(resume) if "same" in resume else _nothing(found, "resume"),
        "the same weights",
    )


def _same(one: Mapping[str, Any]) -> str:
    return f"the same weights (SHA-256 {one['sha256'][0][:8]})" if one["same"] else "other weights"


def _study(found: Found) -> Iterator[Sequence[str]]:
    result = _result(found, "study")
    methods = result.get("methods", {})
    scores = {"teacher": result.get("teacher_miou"), **{name: one["miou"] for name, one in methods.items()}}
    told = ", ".join(f"{name} {100 * miou:.1f}" for name, miou in scores.items() if miou is not None)
    steps = f", {result['teacher_steps']} and {result['steps']} steps" if told else ""
    from_scratch = "from scratch" in result.get("pretrained", {}).values()
    seed = found.get("study", {}).get("seed", 0)
    start = ", from scratch" if told and from_scratch else ""
    what = f"CamVid at 480 x 360, PSPNet-R101 to PSPNet-R18 (`study=camvid_full`{steps}{start}), mIoU, seed {seed}"
    yield what, told or _nothing(found, "study"), ""
