"""Where does a step of training spend its time? By layer, for recipes of every family.

    python benchmarks/profile_layers.py [--recipes NAME …] [--quick] [--operations N] [--json FILE]
    python benchmarks/profile_layers.py --page

Trains each recipe by the package's own function, in f32 and bf16, for a few steps: some are timed
as they are, the same number again under PyTorch's profiler, whose events are then given to
layers, forward and backward pass together (see profile_events.py). What no layer covers is shown as
the rest; all of it adds up to the step. ``--page`` writes docs/profile.md from the committed
results.

Runs on the Penn Treebank and on DailyDialog where the folder UNCOLLAPSE_CORPORA has them; else
on the grammar, and without dialogue.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback
from profile_events import BOUNDARY, Attribution, attribute, events_of
from profile_marks import OUTSIDE, marks
from profile_page import shares, write_page
from profile_settings import RECIPES, SEED, Data, Sizes, recipe_of
from speed_machine import command, describe
from torch.autograd.profiler import record_function

from uncollapse.config import Recipe
from uncollapse.data.corpus import Corpus
from uncollapse.errors import UserError, unknown_name
from uncollapse.model import Model
from uncollapse.objectives.objective import Objective
from uncollapse.training import fit as training

WARM_UP = 2  # steps before any is timed
PRECISIONS = ("f32", "bf16")
QUICK = Sizes(steps=0.3)
# for a test of this script: nothing but that it runs
TINY = Sizes(16, 8, 4, 4, steps=0.1, vocabulary_size=300, grammar=True)


class Enough(Exception):  # noqa: N818 (not a fault)
    """All steps are done."""


class Watch(Callback):
    """Times so many steps, then profiles as many, then ends the run.

    Parameters
    ----------
    steps : int
    warm_up : int
    """

    def __init__(self, steps: int, warm_up: int = WARM_UP) -> None:
        self.steps = steps
        self.warm_up = warm_up
        self.done = 0
        self.seconds = [0.0, 0.0]  # timed, profiled
        self.tokens = [0, 0]
        self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        self._started = 0.0

    def on_train_batch_end(self, *what: Any) -> None:
        batch = what[3]  # trainer, module and outputs come first
        now = time.perf_counter()
        phase, place = divmod(self.done - self.warm_up, self.steps)
        if phase >= 0:
            self.tokens[phase] += int((batch.lengths - 1).sum())
        self.done += 1
        if phase >= 0 and place == self.steps - 1:
            self.seconds[phase] = now - self._started
        if phase == 1 and place == self.steps - 1:
            with record_function(BOUNDARY):
                pass
            self.profiler.stop()
            raise Enough
        if self.done == self.warm_up + self.steps:
            self.profiler.start()
            self._started = time.perf_counter()
            with record_function(BOUNDARY):
                pass
        elif self.done == self.warm_up:
            self._started = time.perf_counter()


def profile(
    recipe: Recipe, corpus: Corpus, types: int, folder: Path, steps: int
) -> tuple[dict[str, Any], Attribution]:
    """Train a recipe for a few steps of its last stage, and say where their time goes.

    Returns
    -------
    facts : dict
        For the results.
    found : Attribution
        The same of all profiled steps together, and by operations.
    """
    torch.manual_seed(SEED)
    model = Model(recipe, types)
    watch = Watch(steps, WARM_UP if steps > 2 else 1)
    with _last_stage(), marks(model):
        try:
            training.fit(
                model,
                Objective(recipe.objective),
                recipe,
                corpus,
                corpus.head(recipe.training.batch_size),
                folder,
                seed=SEED,
                device="cpu",
                show_progress=False,
                callbacks=[watch],
            )
        except Enough:
            pass
        else:
            raise AssertionError("the corpus has fewer batches than were asked for")
    found = attribute(events_of(watch.profiler), OUTSIDE)
    return {
        "steps": steps,
        "ms": 1e3 * watch.seconds[0] / steps,
        "tokens_per_second": watch.tokens[0] / watch.seconds[0],
        "profiled_ms": 1e3 * watch.seconds[1] / steps,
        "profiled_tokens_per_second": watch.tokens[1] / watch.seconds[1],
        "layers": {
            layer: 1e3 * seconds / steps
            for layer, seconds in sorted(found.seconds.items(), key=lambda item: -item[1])
        },
        "runs": {network: runs(found, network) / steps for network in ("encoder", "decoder")},
    }, found


def runs(found: Attribution, network: str) -> int:
    """How often a network ran, by itself or inside something else; turns of contexts aside."""
    parts = [(layer.split("/"), count) for layer, count in found.calls.items()]
    return sum(n for path, n in parts if path[-1] == network and "contexts" not in path)


@contextmanager
def _last_stage() -> Iterator[None]:
    """Of a strategy with several stages the last alone: those before it train like others."""
    stages = training.build_stages
    with patch.object(training, "build_stages", lambda recipe: stages(recipe)[-1:]):
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse(arguments)
    if options.page:
        write_page()
        return
    sizes = TINY if options.tiny else QUICK if options.quick else Sizes()
    try:
        for name in options.recipes or ():
            if name not in RECIPES:
                raise unknown_name("profiled recipe", name, RECIPES)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    machine = describe()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Data(Path(folder), sizes)
        for name in options.recipes or RECIPES:
            source = data.source(name)
            if source is None:
                print(f"{name}: skipped, there is no {RECIPES[name].corpus} in UNCOLLAPSE_CORPORA")
                continue
            facts: dict[str, Any] = {"family": RECIPES[name].family, "corpus": source[0]}
            for precision in PRECISIONS:
                recipe = recipe_of(name, sizes, precision)
                corpus, types = data.read(name, recipe)
                steps = max(1, round(sizes.steps * RECIPES[name].steps))
                place = Path(folder) / f"{name}-{precision}"
                facts[precision], found = profile(recipe, corpus, types, place, steps)
                show(name, precision, facts[precision])
                show_operations(found, options.operations, steps)
            results[name] = facts | {"types": types, "optimizer": recipe.training.optimizer}
    if options.json is not None:
        facts = {"command": command("profile_layers.py", arguments), "seed": SEED, **machine}
        facts |= {"sizes": asdict(sizes), "recipes": results}
        options.json.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="some of them")
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument(
        "--operations", type=int, default=0, metavar="N", help="and the N longest of each layer"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")
    parser.add_argument("--page", action="store_true", help="write docs/profile.md, and no more")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def show(name: str, precision: str, facts: Mapping[str, Any]) -> None:
    """Print a recipe's layers in one precision."""
    slower = facts["tokens_per_second"] / facts["profiled_tokens_per_second"]
    print(
        f"\n{name}, {precision}: {facts['ms']:,.1f} ms a step, "
        f"{facts['tokens_per_second']:,.0f} tokens/s; {slower:.2f} times as slow when profiled"
    )
    own = shares(facts)
    print("  " + ", ".join(f"{column} {share:.1%}" for column, share in own.items() if share))
    if max(facts["runs"].values()) > 1:
        print("  runs: " + ", ".join(f"{part} {n:g}" for part, n in facts["runs"].items()))


def show_operations(found: Attribution, most: int, steps: int) -> None:
    """Print the longest operations of every layer."""
    layers = sorted(found.seconds, key=lambda layer: -found.seconds[layer]) if most else ()
    for layer in layers:
        print(f"    {layer}: {1e3 * found.seconds[layer] / steps:.2f} ms")
        own = {name: took for (part, name), took in found.operations.items() if part == layer}
        for name in sorted(own, key=lambda name: -own[name])[:most]:
            print(f"      {1e3 * own[name] / steps:9.2f}  {name}")


if __name__ == "__main__":
    main()
