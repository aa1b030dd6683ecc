"""Gather what reproductions have measured into files that are small enough to commit.

    uncollapse reproduce bn-table1 --out reproductions      # and others
    python benchmarks/collect.py reproductions

Writes ``benchmarks/results/PRESET/EDITION.json``, a record a run, and of every figure what it is
drawn from, ``benchmarks/results/figures/NAME-PRESET.json``, with its picture in
``docs/reproduction``. Records that are there already are kept unless they were measured anew.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from uncollapse.plots.style import save_figure
from uncollapse.reproduction.figures import FIGURES
from uncollapse.reproduction.inputs import PRESETS, folder_name
from uncollapse.reproduction.published import load_published
from uncollapse.reproduction.records import (
    RECORD,
    Record,
    read_results,
    read_sealed,
    write_results,
    write_sealed,
)

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "reproduction"
COMMAND = "uncollapse reproduce NAME and uncollapse leaderboard, --preset {preset}"


def collect_records(folder: Path) -> None:
    """All measured runs of a folder of reproductions, by preset and edition."""
    for preset in PRESETS:
        found: dict[str, dict[tuple[str, int], Record]] = defaultdict(dict)
        for path in sorted((folder / "runs" / preset).glob(f"*/*/*/{RECORD}")):
            record = Record.load(path.parent)
            assert record is not None
            found[record.edition][record.system, record.seed] = record
        for edition, records in found.items():
            target = RESULTS / preset / f"{folder_name(edition)}.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            before = read_results(target) if target.is_file() else []
            kept = {(record.system, record.seed): record for record in before}
            write_results(target, [*(kept | records).values()], COMMAND.format(preset=preset))
            print(f"{target.relative_to(ROOT)}: {len(kept | records)} runs")


def collect_figures(folder: Path) -> None:
    """What the figures of a folder are drawn from, and the pictures."""
    target = RESULTS / "figures"
    target.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.json")):
        name, _, preset = path.stem.rpartition("-")
        if name not in FIGURES or preset not in PRESETS:
            continue
        found = read_sealed(path)
        kept = ("name", "preset", "values", "drawn", "markdown", "environment", "corpora")
        write_sealed(target / path.name, {key: found[key] for key in kept})
        picture = FIGURES[name].draw(load_published(name), found["values"])
        if picture is not None:
            save_figure(picture, PICTURES / f"{path.stem}.png")
        print(f"{(target / path.name).relative_to(ROOT)}")


def main() -> None:
    """Gather everything of a folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what was given to reproduce as --out")
    folder = parser.parse_args().folder
    if not (folder / "reproductions.json").is_file():
        parser.error(f"{folder} holds no reproductions")
    collect_records(folder)
    collect_figures(folder)


if __name__ == "__main__":
    main()
