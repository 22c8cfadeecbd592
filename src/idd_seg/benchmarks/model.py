"""Student and teacher beside each other: parameters, operations, time and memory, and what that buys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from idd_seg.benchmarks.frame_rate import check_rate, fastest, lines_of
from idd_seg.benchmarks.model_picture import draw
from idd_seg.benchmarks.networks import Case, Found, cases_of, flops, picture_size, strides
from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.timing import peak_device_memory, peak_memory, time_all
from idd_seg.benchmarks.ways import WAYS, Call, NotHereError, alone, picture
from idd_seg.errors import ConfigError, suggest
from idd_seg.models.segmenter import count_parameters
from idd_seg.plotting.figures import save
from idd_seg.plotting.tables import percent
from idd_seg.runs.provenance import machine, write_json


def run(cfg: DictConfig, device: torch.device) -> list[Row]:
    """Measure the networks of `cases_of` in the ways `cfg.ways`; write `model.json` and `model.png` in the run folder.

    Raises:
        UserError: for a refused option, or a network that can't be built.
    """
    if cfg.data.channels != 3:
        raise ConfigError(f"suite=model measures networks of 3 channels, and data.channels is {cfg.data.channels}")
    size, batch, ways = picture_size(cfg), _whole("batch", cfg.batch), _ways(cfg)
    _whole("repeats", cfg.repeats)
    rate = check_rate(cfg.fps)
    cases = cases_of(cfg)
    shape = (batch, 3, *size)
    found = [
        Found(c.name, count_parameters(c.network), flops(c.network, shape), strides(c.network), c.miou) for c in cases
    ]
    left_out = _measure(cases, found, ways, size, batch, device, cfg.repeats)
    title = f"{cfg.data.name}, {batch} x {size[0]} x {size[1]}, {device}"
    content = {
        **{
            "data": cfg.data.name,
            "size": list(size),
            "batch": batch,
            "device": str(device),
            "repeats": cfg.repeats,
            "fps": rate,
        },
        "machine": machine(),
        "networks": [each.as_dict(batch) for each in found],
        "left_out": left_out,
    }
    run_dir = Path(cfg.run_dir)
    write_json(run_dir / "model.json", content)
    _table(title, found, batch)
    for line in left_out:
        print(f"not measured: {line}")
    if rate is not None:
        print("\n".join(lines_of(fastest(found, batch), rate)))
    print(f"picture: {save(draw(title, found, None if rate is None else batch / rate), run_dir / 'model.png')}")
    return _rows(found)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, got '{value}'")
    return value


def _ways(cfg: DictConfig) -> list[str]:
    ways = cfg.ways
    if not OmegaConf.is_list(ways):
        raise ConfigError(f"ways must be a list, as in ways=[eager,onnx], got '{ways}'")
    for way in ways:
        if way not in WAYS:
            raise ConfigError(f"there is no way '{way}'{suggest(str(way), WAYS)} They are {', '.join(WAYS)}")
    return list(dict.fromkeys(ways))


def _measure(
    cases: Sequence[Case],
    found: Sequence[Found],
    ways: Sequence[str],
    size: Sequence[int],
    batch: int,
    device: torch.device,
    repeats: int,
) -> list[str]:
    """Fill in times, of all networks and ways in turns, and memory; return what could not be measured, and why."""
    image, left_out = picture(size, batch, device), []
    calls: dict[str, tuple[int, str, Call]] = {}
    for i, case in enumerate(cases):
        network = case.network.to(device)
        for way in ways:
            try:
                calls[f"{i} {way}"] = (i, way, WAYS[way](network, image, False))
            except NotHereError as error:
                left_out.append(f"{case.name}, {way}: {error}")
    times = time_all({key: call for key, (_, _, call) in calls.items()}, repeats, device=device)
    for key, (i, way, call) in calls.items():
        found[i].times[way] = times[key]
        try:
            found[i].memory[way] = _memory(cases[i], way, call, size, batch, device)
        except EOFError:
            left_out.append(f"{cases[i].name}, {way}: the memory, because the process for it ended without an answer")
    return left_out


def _memory(case: Case, way: str, call: Call, size: Sequence[int], batch: int, device: torch.device) -> int:
    """Return the bytes that one call takes at its peak beyond the weights."""
    if device.type == "cuda":
        return peak_device_memory(call, device)
    return peak_memory(alone, case.node, way, tuple(size), batch)


def _rows(found: Sequence[Found]) -> list[Row]:
    """Compare each network's ways with PyTorch, and the first network with the second."""
    rows = []
    for each in found:
        base = each.times.get("eager")
        for way, t in each.times.items():
            if base is not None and way != "eager":
                rows.append(Row(f"{each.name}: {way}", str(t), f"PyTorch: {base}", base.median / t.median))
    for way in found[0].times:
        for other in (each for each in found[1:2] if way in each.times):
            ours, theirs = found[0].times[way], other.times[way]
            what = f"{found[0].name} against {other.name}: {way}"
            rows.append(Row(what, str(ours), str(theirs), theirs.median / ours.median))
    return rows


def _table(title: str, found: Sequence[Found], batch: int) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("network")
    for name in ("parameters, M", "GFLOPs", "mIoU, %", "way", "ms a batch (quartiles)", "images/s", "peak memory, MB"):
        table.add_column(name, justify="right")
    for each in found:
        miou = "-" if each.miou is None else percent(each.miou)
        own = (escape(each.name), f"{each.parameters / 1e6:.2f}", f"{each.flops / 1e9:.2f}", miou)
        if not each.times:
            table.add_row(*own, "-", "-", "-", "-")
        for i, (way, t) in enumerate(each.times.items()):
            took = f"{1e3 * t.median:.1f} ({1e3 * t.low:.1f} to {1e3 * t.high:.1f})"
            memory = f"{each.memory[way] / 1e6:.1f}" if way in each.memory else "-"
            table.add_row(*(own if i == 0 else ("", "", "", "")), way, took, f"{batch / t.median:.2f}", memory)
    Console(width=150).print(table)
