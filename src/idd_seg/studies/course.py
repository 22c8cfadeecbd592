"""The course of a study: the search for weights, the runs that count, and its results on disk as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from idd_seg.runs.provenance import write_json
from idd_seg.studies.classes import draw_classes
from idd_seg.studies.curves import draw_curves
from idd_seg.studies.equal_time import steps_as_long
from idd_seg.studies.jobs import Job, Result, Runner
from idd_seg.studies.picture import draw
from idd_seg.studies.plan import Method, StudyPlan
from idd_seg.studies.tables import markdown

# The phases of a study, as they stand in the names of its runs.
RATE, SEARCH, FINAL = "rate", "search", "final"


@dataclass(frozen=True)
class _Run:
    """A training of a phase; `tried` is a learning rate, or what the weights are multiplied by."""

    phase: str
    method: Method
    tried: float
    seed: int

    @property
    def factor(self) -> float:
        return 1.0 if self.phase == RATE else self.tried

    @property
    def name(self) -> str:
        tried = {SEARCH: f"-x{self.tried:g}", RATE: f"-lr{self.tried:g}"}.get(self.phase, "")
        return f"{self.phase}-{self.method.name}{tried}-seed{self.seed}"


def beyond(scores: Mapping[float, float]) -> float | None:
    """Return the factor to try next where the best one lies at an edge, a step like the last one on; else None."""
    factors, best = sorted(scores), max(scores, key=lambda f: scores[f])
    if len(factors) < 2 or best not in (factors[0], factors[-1]):
        return None
    # Of few digits: the factor is part of the run's name.
    edge, inner = (factors[0], factors[1]) if best == factors[0] else (factors[-1], factors[-2])
    return float(f"{edge * edge / inner:.3g}")


@dataclass
class Course:
    """A study on its way.

    Args:
        folder: of the runs.
        kept: folder of the results: a table, and JSON of each run.

    Attributes:
        rate: the learning rate that suited the twin best; None where none is searched.
        chosen: weights by method and term, as far as they have been found.
        results: by method, by seed.
    """

    plan: StudyPlan
    folder: Path
    kept: Path
    runner: Runner
    rate: float | None = None
    chosen: dict[str, dict[str, float]] = field(default_factory=dict)
    results: dict[str, dict[int, Result]] = field(default_factory=dict)

    def search(self) -> None:
        """Find the learning rate, then the weights in waves: a method waits for those whose weights it takes."""
        if self.plan.rates:
            twin = self.plan.methods[self.plan.twin]
            rates = self._try(RATE, {twin: self.plan.rates})[twin.name]
            self.rate = max(rates, key=lambda rate: rates[rate])
            print(f"{self.plan.name}: learning rate {self.rate:g}, of {', '.join(f'{r:g}' for r in sorted(rates))}")
        left = list(self.plan.methods.values())
        while left:
            ready = [method for method in left if method.sources <= set(self.chosen)]
            left = [method for method in left if method not in ready]
            tried = self._try(SEARCH, {method: self.plan.factors for method in ready if method.scale})
            for method in ready:
                scores = tried.get(method.name, {})
                factor = max(scores, key=lambda f: scores[f]) if scores else 1.0
                self.chosen[method.name] = method.weights_at(self.chosen, factor)

    def _try(self, phase: str, wanted: Mapping[Method, Sequence[float]]) -> dict[str, dict[float, float]]:
        """Return the scores of the methods by factor, and of factors beyond while the best one lies at an edge."""
        scores: dict[str, dict[float, float]] = {method.name: {} for method in wanted}
        for _ in range(1 + self.plan.extend):
            runs = [
                _Run(phase, method, factor, seed)
                for method, factors in wanted.items()
                for factor in factors
                for seed in self.plan.search_seeds
            ]
            for run, result in self._run(runs, self.plan.search):
                found = scores[run.method.name]
                found[run.tried] = found.get(run.tried, 0.0) + result.miou
            wanted = {m: [further] for m in wanted if (further := beyond(scores[m.name])) is not None}
            if not wanted:
                break
        return scores

    def train(self) -> None:
        """Train every method with every seed; seed by seed, so that a stopped study has compared all methods."""
        untimed = [method for method in self.plan.methods.values() if method.as_long_as is None]
        if len(untimed) == len(self.plan.methods):
            self._finals(self.plan.seeds, untimed)
            return
        # How many steps take as long is told by the first seed.
        self._finals(self.plan.seeds[:1], untimed)
        self._finals(self.plan.seeds, [self._timed(method) for method in self.plan.methods.values()])

    def _finals(self, seeds: Sequence[int], methods: Sequence[Method]) -> None:
        # The weights have been found: they stand in place of what the method was searched from.
        found = [Method(method.name, self.chosen[method.name], (), method.options) for method in methods]
        self._run([_Run(FINAL, method, 1.0, seed) for seed in seeds for method in found], ())

    def _timed(self, method: Method) -> Method:
        """Return a method with the number of steps that take as long as another one, if it asks for that."""
        if method.as_long_as is None:
            return method
        steps = steps_as_long(self.plan, method, {name: runs[self.plan.seeds[0]] for name, runs in self.there.items()})
        return replace(method, options=[*method.options, f"trainer.max_steps={steps}"])

    @property
    def table(self) -> str:
        """The table of what there is, in Markdown; empty before there is a twin."""
        if self.plan.twin not in self.there:
            return ""
        against = {name: method.against for name, method in self.plan.methods.items() if method.against is not None}
        plan = self.plan
        return markdown(
            self.there, plan.twin, self._teacher, self.chosen, plan.ours, against, plan.clock, plan.timed_twin
        )

    @property
    def folders(self) -> dict[str, dict[int, Path]]:
        """The folders of the runs that count, as far as they are there."""
        made = {
            name: {seed: self.folder / f"final-{name}-seed{seed}" for seed in sorted(seeds)}
            for name, seeds in self.there.items()
        }
        there = {name: {s: path for s, path in seeds.items() if path.is_dir()} for name, seeds in made.items()}
        return {name: seeds for name, seeds in there.items() if seeds}

    @property
    def shown(self) -> list[str]:
        """The methods worth a picture: the twin, the best of the rivals, and ours."""
        plan, means = self.plan, {n: sum(r.miou for r in runs.values()) / len(runs) for n, runs in self.there.items()}
        others = [name for name in means if name not in (plan.twin, plan.ours)]
        others = [name for name in others if name in plan.rivals] or others
        best = [max(others, key=lambda name: means[name])] if others else []
        return [plan.twin, *best, *([plan.ours] if plan.ours in means else [])]

    @property
    def there(self) -> dict[str, dict[int, Result]]:
        """The results so far, in the order of the plan."""
        return {name: self.results[name] for name in self.plan.methods if self.results.get(name)}

    @property
    def _teacher(self) -> float | None:
        found = (r.teacher_miou for runs in self.results.values() for r in runs.values())
        return next((miou for miou in found if miou is not None), None)

    def _run(self, runs: Sequence[_Run], options: Sequence[str]) -> list[tuple[_Run, Result]]:
        words = [self._words(run, options) for run in runs]
        found: dict[int, Result] = {}

        def then(number: int, result: Result) -> None:
            found[number] = result
            self._keep(runs[number], words[number], result)

        for number, run in enumerate(runs):
            kept = self._kept(run, words[number])
            if kept is not None:
                then(number, kept)
        left = [number for number in range(len(runs)) if number not in found]
        jobs = [Job(self.folder / runs[n].name, words[n], f"{self.plan.name}: {runs[n].name}") for n in left]
        self.runner.run(jobs, lambda i, result: then(left[i], result))
        return [(run, found[number]) for number, run in enumerate(runs)]

    def _kept(self, run: _Run, words: Sequence[str]) -> Result | None:
        """Return what an earlier call has kept of a run with the same options, though its folder may be gone."""
        path = self.kept / f"{run.name}.json"
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return Result.from_dict(content) if content.get("options") == list(words) else None

    def _words(self, run: _Run, options: Sequence[str]) -> list[str]:
        rate = run.tried if run.phase == RATE else self.rate
        fitted = [] if rate is None else [f"optimizer.lr={rate:g}"]
        chosen = run.method.overrides(self.chosen, run.factor)
        return [*self.plan.common, *options, *fitted, *chosen, f"seed={run.seed}", f"name={self.plan.name}"]

    def _keep(self, run: _Run, words: Sequence[str], result: Result) -> None:
        about = {"method": run.method.name, "phase": run.phase, "seed": run.seed}
        weights: Mapping[str, float] = run.method.weights_at(self.chosen, run.factor)
        content = {"study": self.plan.name, **about, "weights": weights, "options": words, **result.as_dict()}
        write_json(self.kept / f"{run.name}.json", content)
        print(f"{self.plan.name}: {run.name}: mIoU {100 * result.miou:.2f} %\n", end="", flush=True)
        if run.phase == FINAL:
            self.results.setdefault(run.method.name, {})[run.seed] = result
            (self.kept / "table.md").write_text(self.table, encoding="utf-8")
            if self.table:
                draw(self.there, self.plan.twin, self._teacher, self.kept / "methods.png")
                draw_curves(self.there, self.plan.twin, self.plan.clock, self.kept / "curves.png")
                draw_classes(self.there, self.plan.twin, self.kept / "classes.png")
            content = {"study": self.plan.name, "weights": self.chosen, "teacher_miou": self._teacher}
            content |= {} if self.rate is None else {"learning_rate": self.rate}
            write_json(self.kept / "chosen.json", content)
