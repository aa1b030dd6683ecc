"""How fast are training, likelihood and sampling, against the obvious PyTorch code?

Prints one table. Every variant lives in a process of its own (its peak memory, and the settings
that it makes, are its own), and variants that are compared take turns, round by round, on the
same fresh data: a ratio is taken between neighbours in time, and the median, least and greatest
ratio over the rounds are shown. Trust those; absolute numbers move with the machine.

    python benchmarks/speed.py [--quick] [--json FILE]

Runs on the Penn Treebank where the folder UNCOLLAPSE_CORPORA has it, else on the grammar.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from speed_variants import SEED, WORKLOADS, Round, Settings, corpora, work

UNITS = {"training": "tokens/s", "likelihood": "sentences/s", "sampling": "tokens/s"}
# little time, but the same sizes
QUICK = {"rounds": 3, "batches": 8, "sentences": 2, "plain_rows": 256, "rows": 512}
# for a test of this script: nothing but that it runs
TINY = {
    "embedding_dim": 16,
    "hidden_dim": 8,
    "latent_dim": 4,
    "rounds": 2,
    "batches": 3,
    "sentences": 2,
    "samples": 5,
    "plain_rows": 4,
    "rows": 4,
    "max_length": 10,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="about a minute, fewer rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round here, too")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    sizes: dict[str, Any] = TINY if options.tiny else QUICK if options.quick else {}
    with tempfile.TemporaryDirectory() as folder:
        settings = prepare(Settings(Path(folder), **sizes), grammar=options.tiny)
        machine = describe_machine()
        print(f"{settings.corpus}; {', '.join(f'{k} {v}' for k, v in machine.items())}")
        results = {}
        for workload in WORKLOADS:
            results[workload] = compare(workload, settings)
            show(workload, results[workload])
    if options.json is not None:
        rounds = {
            workload: {variant: [asdict(turn) for turn in found[variant]] for variant in found}
            for workload, found in results.items()
        }
        facts = {"settings": {**asdict(settings), "folder": None}, "machine": machine}
        options.json.write_text(json.dumps({**facts, "rounds": rounds}, indent=1), "utf-8")


def describe_machine() -> dict[str, Any]:
    import torch

    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next((x.split(": ")[1] for x in lines if x.startswith("model name")), name)
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "torch": torch.__version__,
        "processor": name,
        "threads": torch.get_num_threads(),
        "load at the start": load,
    }


def prepare(settings: Settings, *, grammar: bool) -> Settings:
    """Write the corpora and the tokenizer; tell which corpus it is."""
    from uncollapse.data.grammar import assistant_grammar
    from uncollapse.data.tokenizer import Tokenizer

    source = Path(os.environ.get("UNCOLLAPSE_CORPORA") or "nowhere") / "ptb"
    if source.is_dir() and not grammar:
        name = "Penn Treebank"
        texts = {part: (source / f"{part}.txt").read_text("utf-8") for part in ("train", "test")}
    else:
        name = "grammar"
        sentences = [s.text for s in assistant_grammar().sample(42_000, seed=SEED)]
        texts = {"train": "\n".join(sentences[2000:]), "test": "\n".join(sentences[:2000])}
    for part, text in texts.items():
        (settings.folder / f"{part}.txt").write_text(text, "utf-8")
    tokenizer = Tokenizer.train(texts["train"].splitlines(), "whitespace", None)
    tokenizer.save(settings.folder / "tokenizer.json")
    corpora(settings)
    return replace(settings, corpus=f"{name}, {len(tokenizer):,} types")


def compare(workload: str, settings: Settings) -> dict[str, list[Round]]:
    """Let the variants of a workload take turns."""
    context = get_context("forkserver")  # a clean process each, but torch is imported once
    context.set_forkserver_preload(["torch", "uncollapse.model"])
    ends, workers = {}, []
    for variant in WORKLOADS[workload]:
        ends[variant], other = context.Pipe()
        arguments = (workload, variant, settings, other)
        worker = context.Process(target=work, args=arguments, daemon=True)
        worker.start()
        other.close()
        workers.append(worker)
    for end in ends.values():
        end.recv()  # all are set up before the first turn
    rounds: dict[str, list[Round]] = {variant: [] for variant in ends}
    for _ in range(settings.rounds):
        for variant, end in ends.items():
            end.send(True)
            rounds[variant].append(end.recv())
            end.recv()
    for end, worker in zip(ends.values(), workers, strict=True):
        end.send(False)
        worker.join()
    return rounds


def show(workload: str, rounds: dict[str, list[Round]]) -> None:
    """Print the rows of a workload."""
    plain = next(iter(rounds))
    print(f'\n{workload:32}{UNITS[workload]:>12}{"peak MB":>10}   times "{plain}", by rounds')
    for variant, turns in rounds.items():
        rate = median(turn.rate for turn in turns)
        pairs = zip(turns, rounds[plain], strict=True)
        ratios = [turn.rate / reference.rate for turn, reference in pairs]
        print(
            f"  {variant:30}{rate:12,.4g}{turns[-1].peak_mb:10,.0f}   "
            f"{median(ratios):6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    figures = {variant: [turn.figure for turn in turns] for variant, turns in rounds.items()}
    if workload == "likelihood":
        for variant, nats in list(figures.items())[1:]:
            worst = max(abs(a - b) for a, b in zip(nats, figures[plain], strict=True))
            print(f"  {variant}: NLL within {worst:.4f} of the plain one's {nats[-1]:.1f} nats")
    if workload == "sampling":
        for variant, lengths in figures.items():
            print(f"  {variant}: {sum(lengths) / len(lengths):.1f} words a sentence")


if __name__ == "__main__":
    main()
