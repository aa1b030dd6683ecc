"""One run from beginning to end: train or go on, measure, record.

Whatever was finished before is kept: a trained model is not trained again, a figure not measured
again.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uncollapse import saving
from uncollapse.errors import RunError
from uncollapse.jobs.job import locked
from uncollapse.reproduction.records import KEPT_HISTORY, Record, environment
from uncollapse.reproduction.tasks import Task

if TYPE_CHECKING:
    from uncollapse.text_vae import TextVAE

COST = "cost.json"
GREEDY = "greedy"  # NAME@greedy: of sentences of the most probable words


def run_task(task: Task) -> Record:
    """Do whatever of a task is not done yet.

    Raises
    ------
    UncollapseError
        Bad data, a failure, or `Interrupted` after a checkpoint.
    """
    folder, run = Path(task.folder), Path(task.run)
    with locked(run):
        known = Record.load(folder)
        missing = [name for name in task.metrics if not is_measured(known, name)]
        if known is not None and not missing:
            return known
        vae = trained(task, run)
        vae.to(task.device)
        values = measured(vae, task, missing)
        fresh = Record(
            preset=task.preset,
            edition=task.edition,
            system=task.system,
            recipe=task.recipe,
            changes=list(task.changes),
            seed=task.seed,
            metrics={},
            cost=cost_of(run, vae),
            history=kept_history(vae.history_),
            environment=environment(),
            protocol={
                "data": task.data,
                "digest": task.digest,
                "samples": task.samples,
                "generated": task.generated,
            },
        )
        before = known.metrics if known is not None else {}
        record = replace(fresh, metrics={**before, **values})
        folder.mkdir(parents=True, exist_ok=True)
        record.save(folder)
        return record


def finished(task: Task) -> Record | None:
    """The record of a task of which nothing is left to do.

    Raises
    ------
    RunError
        If its file was edited by hand, or is of a run with other settings.
    """
    record = Record.load(Path(task.folder))
    if record is None:
        return None
    same = (record.protocol.get("data"), record.protocol.get("samples"))
    if same != (task.data, task.samples) or record.changes != list(task.changes):
        raise RunError(
            f"{task.folder} holds a run with other settings; choose another folder with --out"
        )
    if record.protocol.get("digest") != task.digest:
        raise RunError(
            f"{task.folder} holds a run on other data of the same name; choose another folder with "
            "--out"
        )
    return record if all(is_measured(record, name) for name in task.metrics) else None


def is_measured(record: Record | None, name: str) -> bool:
    """Whether a figure, or any of a group, is in a record; a dash counts."""
    from uncollapse.evaluation.suite import PROBES

    if record is None:
        return False
    if name == "standard":
        return "reconstruction" in record.metrics or "nll" in record.metrics
    plain, at, column = name.partition("@")
    if plain in PROBES:
        return any(f"{figure}{at}{column}" in record.metrics for figure in PROBES[plain])
    return name in record.metrics


def trained(task: Task, run: Path) -> TextVAE:
    """The trained model of a task: loaded, gone on with, or trained."""
    from uncollapse.benchmark.folder import check_recipe, clear_unbegun
    from uncollapse.recipes import load_recipe
    from uncollapse.text_vae import TextVAE

    recipe = load_recipe(task.recipe, [*task.changes[:-1], f"name={_plain(task)}"])
    check_recipe(run, recipe)
    if saving.is_finished(run):
        return TextVAE.from_pretrained(run)
    begun = (run / "config.json").is_file()
    if not begun and run.is_dir():
        clear_unbegun(run, COST)
    before = read_cost(run)
    began, cpu_began = time.perf_counter(), time.process_time()
    try:
        return TextVAE(recipe).fit(
            task.train,
            validation=task.validation,
            out=run,
            seed=task.seed,
            device=task.device,
            resume=begun,
            progress=False,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    finally:
        if run.is_dir():
            spent = {
                "seconds": before["seconds"] + time.perf_counter() - began,
                "cpu_seconds": before["cpu_seconds"] + time.process_time() - cpu_began,
                "peak_memory_mb": max(before["peak_memory_mb"], _peak_memory()),
            }
            saving.write_text(run / COST, json.dumps(spent) + "\n")


def _plain(task: Task) -> str:
    return task.system.partition(",trained_on=")[0]


def _peak_memory() -> float:
    """MB that this process has held at most: on the GPU if it used one, else in all."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def read_cost(run: Path) -> dict[str, float]:
    """What the training has cost so far."""
    try:
        return json.loads((run / COST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"seconds": 0.0, "cpu_seconds": 0.0, "peak_memory_mb": 0.0}


def cost_of(run: Path, vae: TextVAE) -> dict[str, float | None]:
    """The cost of a finished run, pretraining included."""
    spent, rows = read_cost(run), vae.history_
    earlier = saving.read_history(run / "pretraining")
    seconds = sum(row["seconds"] for row in (*earlier, *rows))
    best = best_epoch(rows, vae.recipe.training.select_on)
    until = sum(row["seconds"] for row in (*earlier, *rows[:best]))
    # an update of the encoder alone is one too
    made, before = [float(earlier[-1]["batches_seen"] if earlier else 0)], 0
    for row in rows:
        made.append(made[-1] + (1 + row.get("inner_steps", 0.0)) * (row["batches_seen"] - before))
        before = row["batches_seen"]
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(spent["cpu_seconds"], 1) or None,
        "seconds_to_best": round(until, 1),
        "epochs": len(rows),
        "best_epoch": best,
        "updates": round(made[-1]),
        "updates_to_best": round(made[best]),
        "parameters": sum(weights.numel() for weights in vae.model.parameters()),
        "peak_memory_mb": round(spent["peak_memory_mb"]) or None,
    }


def best_epoch(rows: list[dict[str, Any]], select_on: str) -> int:
    """Which epoch's weights a run kept, from 1; 0 without a history."""
    if not rows or select_on == "last":
        return len(rows)
    sign = 1.0 if select_on == "objective" else -1.0
    scores = [sign * row[f"validation/{select_on}"] for row in rows]
    return scores.index(min(scores)) + 1


def kept_history(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The validation figures an epoch that figures are drawn from; summed over latents."""
    kept = []
    for row in rows:
        found: dict[str, float] = {"epoch": row["epoch"], "seconds": row["seconds"]}
        for key, value in row.items():
            split, _, name = key.partition("/")
            figure, _, latent = name.partition("/")
            if split != "validation" or figure not in KEPT_HISTORY or value is None:
                continue
            if not latent:
                found[figure] = value
            elif f"validation/{figure}" not in row:
                found[figure] = found.get(figure, 0.0) + value
        kept.append(found)
    return kept


def measured(vae: TextVAE, task: Task, names: list[str]) -> dict[str, dict[str, Any]]:
    """Figures by name; a dash where the system has no such figure."""
    from uncollapse.evaluation.metric import no_figure
    from uncollapse.evaluation.standard import metric_names
    from uncollapse.evaluation.suite import PROBES

    has = {"standard", *metric_names(vae.model), *PROBES}
    has |= {figure for group in PROBES.values() for figure in group}
    by_column: dict[str | None, list[str]] = defaultdict(list)
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        plain, _, column = name.partition("@")
        if plain in has:
            by_column[column or None].append(plain)
        else:
            found[name] = no_figure("", "the system has no such figure", name).to_dict()
    for column, wanted in by_column.items():
        metrics = vae.evaluate(
            task.files["test"],
            wanted,
            train=task.files["train"],
            label_column=task.label_column if column in (None, GREEDY) else column,
            samples=task.samples,
            generated=task.generated,
            greedy=column == GREEDY,
            seed=0,
        )
        suffix = f"@{column}" if column else ""
        found |= {f"{name}{suffix}": metric.to_dict() for name, metric in metrics.items()}
    return found
