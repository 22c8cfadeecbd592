"""`python -m idd_seg.study study=NAME`: methods side by side, weights found by the same search for each, over seeds."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from idd_seg import cli


def main(cfg: DictConfig) -> None:
    """Find the weights, train every method with every seed, and write table and JSON of each run.

    What is finished is left; a study goes on where it was stopped.
    """
    from idd_seg.run_folder import write_json
    from idd_seg.studies.jobs import Result, train
    from idd_seg.studies.plan import Method, read_plan
    from idd_seg.studies.tables import markdown

    plan = read_plan(OmegaConf.to_container(cfg.study, resolve=True), cfg.only)  # type: ignore[arg-type]
    folder, kept = Path(cfg.folder), Path(cfg.results)
    kept.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, dict[str, float]] = {}

    def run(phase: str, method: Method, factor: float, seed: int, options: list[str]) -> Result:
        name = f"{phase}-{method.name}" + (f"-x{factor:g}" if phase == "search" else "") + f"-seed{seed}"
        words = [*plan.common, *options, *method.overrides(chosen, factor), f"seed={seed}", f"name={plan.name}"]
        result = train(folder / name, words, f"{plan.name}: {name}")
        about = {"method": method.name, "phase": phase, "seed": seed, "weights": method.weights_at(chosen, factor)}
        write_json(kept / f"{name}.json", {"study": plan.name, **about, "options": words, **result.as_dict()})
        print(f"{plan.name}: {name}: mIoU {100 * result.miou:.2f} %", flush=True)
        return result

    for method in plan.methods.values():
        factor = 1.0
        if method.scale:
            tried = {
                f: sum(run("search", method, f, seed, list(plan.search)).miou for seed in plan.search_seeds)
                for f in plan.factors
            }
            factor = max(tried, key=lambda f: tried[f])
        chosen[method.name] = method.weights_at(chosen, factor)
    results: dict[str, dict[int, Result]] = {name: {} for name in plan.methods}
    for seed in plan.seeds:  # seed by seed, so that a study that is stopped has compared all methods
        for name, method in plan.methods.items():
            # The weights have been found: they stand in place of what the method was searched from.
            final = Method(name, chosen[name], (), method.options)
            results[name][seed] = run("final", final, 1.0, seed, [])
    teacher = next((t for runs in results.values() for r in runs.values() if (t := r.teacher_miou) is not None), None)
    table = markdown(results, plan.twin, teacher, chosen)
    (kept / "table.md").write_text(table, encoding="utf-8")
    write_json(kept / "chosen.json", {"study": plan.name, "weights": chosen, "teacher_miou": teacher})
    print(table)
    print(f"results: {kept}")


if __name__ == "__main__":
    cli.run(main, "study")
