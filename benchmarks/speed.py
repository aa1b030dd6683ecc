"""How fast are training, likelihood and sampling, against the obvious PyTorch code?

Measures what the machine can do, then prints a table a workload. Every variant lives in a
process of its own (its peak memory, and the settings that it makes, are its own), and variants
that are compared take turns, round by round, on the same fresh data: a ratio is taken between
neighbours in time, and the median, least and greatest ratio over the rounds are shown. Trust
those; absolute numbers move with the machine.

    python benchmarks/speed.py [--quick] [--only WORKLOAD …] [--epoch] [--json FILE]

Runs on the Penn Treebank and on DailyDialog where the folder UNCOLLAPSE_CORPORA has them; else
on the grammar, and without dialogue.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from speed_flops import Context, scoring_flops, training_flops
from speed_machine import F32, MACHINE, TURN, command, describe, gemm_limits, limits_in_turns
from speed_settings import (
    DIALOGUE,
    SEED,
    Settings,
    corpus,
    prepare,
    prepare_dialogues,
    recipe,
    tokenizer,
)
from speed_startup import TIMES, epoch, show_epoch, show_starts, starts
from speed_tables import show_limits, show_workload
from speed_training import warm_up
from speed_turns import Variant, take_turns
from speed_variants import Workload, workloads

from uncollapse.errors import UserError, unknown_name

START_UP = "start-up"
# little time, but the same sizes
QUICK = {"rounds": 3, "scale": 0.4, "warm_up": 60, "settle": 4.0}
# for a test of this script: nothing but that it runs
TINY = {
    "embedding_dim": 16,
    "hidden_dim": 8,
    "latent_dim": 4,
    "rounds": 1,
    "scale": 0.1,
    "samples": 5,
    "rows": 4,
    "warm_up": 1,
    "settle": 0.0,
    "max_length": 6,
    "own_sizes": False,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse(arguments)
    begin = time.perf_counter()
    sizes: dict[str, Any] = TINY if options.tiny else QUICK if options.quick else {}
    with tempfile.TemporaryDirectory() as folder:
        machine = describe()
        settings = Settings(Path(folder), kernels=machine["kernels"], **sizes)
        try:
            chosen = choose(settings, options.only)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        settings = replace(settings, corpus=prepare(settings, few=options.tiny))
        print(f"{settings.corpus}; {', '.join(f'{k} {v}' for k, v in machine.items())}")
        types = len(tokenizer(settings, "lstm"))
        limits = gemm_limits(types, 0.01, 64) if options.tiny else gemm_limits(types)
        show_limits(limits)
        facts = {"command": command("speed.py", arguments), "seed": SEED, **machine}
        facts["settings"] = asdict(settings) | {"folder": None}
        facts |= {"limits": limits, "rounds": {}, "limits by round": {}, "flops a token": {}}
        for name, own in measure(settings, chosen, tiny=options.tiny):
            for what, values in own.items():
                facts[what][name] = values
            write(facts, options.json)
        if START_UP in chosen:
            facts["start-up"] = starts(settings.folder, 1 if options.tiny else TIMES)
            show_starts(facts["start-up"])
        if options.epoch:
            facts["epoch"] = epoch(settings)
            show_epoch(facts["epoch"])
    print(f"\ntook {time.perf_counter() - begin:.0f} s")
    write(facts, options.json)


def write(facts: dict[str, Any], file: Path | None) -> None:
    """Keep what has been measured so far; a whole run takes most of an hour."""
    if file is not None:
        file.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="WORKLOAD",
        help="some of them, e.g. training-lstm, or a kind: training, likelihood, sampling",
    )
    parser.add_argument("--epoch", action="store_true", help="also a whole epoch of training")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round here, too")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def choose(settings: Settings, names: Sequence[str] | None) -> list[str]:
    """The workloads that are asked for, all if none is; in the order in which they run.

    Raises
    ------
    UserError
        For a name that is none.
    """
    known = [*workloads(settings), START_UP]
    if names is None:
        return known
    kinds = {workload.kind for workload in workloads(settings).values()}
    for name in names:
        if name not in known and name not in kinds:
            raise unknown_name("workload", name, [*kinds, *known])
    return [name for name in known if name in names or name.split("-")[0] in names]


def measure(
    settings: Settings, chosen: Sequence[str], *, tiny: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run workloads, and print each as it ends; give what is to be kept of it."""
    talks: bool | None = None  # whether there are dialogues, once that is known
    for name, workload in workloads(settings).items():
        if name not in chosen:
            continue
        if workload.family == DIALOGUE:
            talks = prepare_dialogues(settings, few=tiny) if talks is None else talks
            if not talks:
                print(f"\n{name}: skipped, there is no dailydialog in UNCOLLAPSE_CORPORA")
                continue
        if workload.needs_weights:
            warm_up(settings, workload.family)
        flops, variants = flops_of(settings, workload), workload.variants
        if flops is not None:  # a share is of what the machine could do at the time
            types = len(tokenizer(settings, workload.family))
            options = {"types": types, "seconds": 0.01 if tiny else TURN}
            variants = variants | {MACHINE: Variant(limits_in_turns, options, F32)}
        rounds = take_turns(variants, settings.rounds)
        limits = [turn.figures for turn in rounds.pop(MACHINE, [])]
        show_workload(name, workload, rounds, flops, limits)
        yield (
            name,
            {
                "rounds": {one: [asdict(turn) for turn in turns] for one, turns in rounds.items()},
                "limits by round": limits,
                "flops a token": flops,
            },
        )


def flops_of(settings: Settings, workload: Workload) -> float | None:
    """Naive arithmetic of a token; None where rates say more."""
    chosen = recipe(settings, workload.family)
    types = len(tokenizer(settings, workload.family))
    if workload.kind == "likelihood":
        return scoring_flops(chosen, types, settings.samples)
    if workload.kind == "sampling":
        return None
    whole = corpus(settings, workload.family, "train")
    context = Context()
    if whole.contexts is not None:
        told, own = whole.contexts, int(whole.lengths.sum()) + len(whole)
        turns = int(told.turns.sum())
        # <s> and </s> of every turn are read
        read = (told.offsets[told.last] - told.offsets[told.first]).sum() + 2 * turns
        context = Context(int(read) / own, turns / own)
    return training_flops(chosen, types, context)


if __name__ == "__main__":
    main()
