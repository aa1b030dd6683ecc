"""How do time and memory grow with corpus, vocabulary, length, S, K and groups?

Measures each curve at several sizes, each point in a process of its own, and prints how time and
peak memory grow with the size, as the exponent of a power law through the upper points: what is
constant hides at small sizes, so that a steeper law shows at the large ones.

    python benchmarks/growth.py [--quick] [--only CURVE …] [--json FILE] [--figure FILE]
    python benchmarks/growth.py --read FILE --figure FILE
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median, pstdev

from growth_points import FLOOR_MB, SEED, TINY, Point, Sizes, work
from speed_machine import command, describe
from speed_turns import start

from uncollapse.errors import UserError, unknown_name

UPPER = 3  # points that the exponent is of
TOLERANCE = 0.15  # above 1 that an exponent may be and still count as linear
DRAWS = 200  # of repeats, for the noise of an exponent


@dataclass(frozen=True)
class Curve:
    """What varies, and where: in a whole run, a quick one, and for a test."""

    title: str
    unit: str
    full: tuple[int, ...]
    quick: tuple[int, ...]
    tiny: tuple[int, ...]


CURVES = {
    "corpus": Curve(
        "Corpus: cache, then an epoch",
        "sentences",
        (10_000, 32_000, 100_000, 320_000, 1_000_000),
        (10_000, 100_000, 300_000),
        (20, 40, 80),
    ),
    "vocabulary": Curve(
        "Vocabulary: training step",
        "word types",
        (2_000, 6_300, 20_000, 63_000, 200_000),
        (6_300, 20_000, 63_000),
        (20, 30, 40),
    ),
    "length": Curve(
        "Length: training step",
        "tokens",
        (20, 50, 130, 360, 1_000),
        (50, 130, 360),
        (5, 6, 7),
    ),
    "scored length": Curve(
        "Length: likelihood",
        "tokens",
        (20, 50, 130, 360, 1_000),
        (50, 130, 360),
        (5, 6, 7),
    ),
    "samples": Curve(
        "S: likelihood",
        "samples",
        (10, 32, 100, 320, 1_000),
        (32, 100, 320),
        (2, 3, 4),
    ),
    "components": Curve(
        "K: training step",
        "components",
        (5, 20, 80, 320, 1_280),
        (20, 80, 320),
        (2, 3, 4),
    ),
    "groups": Curve(
        "Groups: training step",
        "mixtures of 5",
        (4, 16, 64, 256, 1_024),
        (16, 64, 256),
        (1, 2, 3),
    ),
}


@dataclass(frozen=True)
class Exponent:
    """Of a power law, and how far noise may move it."""

    value: float
    noise: float

    @property
    def is_linear(self) -> bool:
        """Whether growth is at most linear, as far as can be told."""
        return self.value <= 1 + TOLERANCE + 2 * self.noise


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or read, and print."""
    options = parse(arguments)
    begin = time.perf_counter()
    if options.read is not None:
        facts = json.loads(options.read.read_text("utf-8"))
        found = {name: [Point(**p) for p in own] for name, own in facts["curves"].items()}
    else:
        try:
            chosen = choose(options.only)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        facts = describe()
        print(", ".join(f"{key} {value}" for key, value in facts.items()))
        mode = "tiny" if options.tiny else "quick" if options.quick else "full"
        sizes = TINY if options.tiny else Sizes()
        found = {name: measure(name, getattr(CURVES[name], mode), sizes) for name in chosen}
        facts = {"command": command("growth.py", arguments), "seed": SEED, **facts}
        facts["sizes"] = asdict(sizes)
    show(found)
    if options.read is None:
        print(f"took {time.perf_counter() - begin:.0f} s")
    if options.json is not None:
        points = {name: [asdict(point) for point in own] for name, own in found.items()}
        options.json.write_text(json.dumps(facts | {"curves": points}, indent=1) + "\n", "utf-8")
    if options.figure is not None:
        from growth_figure import growth_figure

        from uncollapse.plots.style import save_figure

        figure = growth_figure({CURVES[name]: own for name, own in found.items()})
        save_figure(figure, options.figure)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="three points a curve, none large")
    parser.add_argument("--only", nargs="+", metavar="CURVE", help="some curves, e.g. samples")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every point here, too")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the curves")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing, read these")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def choose(names: Sequence[str] | None) -> list[str]:
    """The curves that are asked for, all if none is.

    Raises
    ------
    UserError
        For a name that is none.
    """
    for name in names or ():
        if name not in CURVES:
            raise unknown_name("curve", name, CURVES)
    return [name for name in CURVES if names is None or name in names]


def measure(curve: str, sizes_of_curve: Sequence[int], sizes: Sizes) -> list[Point]:
    """All points of a curve, each in a process of its own."""
    points = []
    for size in sizes_of_curve:
        end, worker = start(work, curve, size, sizes)
        try:
            points.append(Point(**end.recv()))
        except EOFError:
            raise SystemExit(f"error: {curve} {size} stopped; what it said is above") from None
        worker.join()
    return points


def exponents(points: Sequence[Point]) -> tuple[Exponent, Exponent]:
    """Of time and of memory, over the upper points.

    The noise of time is that of the repeats, one of which is drawn at each point over and over;
    a process has one peak, so that of memory is unknown.
    """
    upper = points[-UPPER:]
    sizes = [point.size for point in upper]
    generator = random.Random(SEED)
    drawn = [
        slope(sizes, [generator.choice(point.seconds) for point in upper]) for _ in range(DRAWS)
    ]
    of_time = slope(sizes, [median(point.seconds) for point in upper])
    of_memory = slope(sizes, [max(point.memory_mb, FLOOR_MB) for point in upper])
    return Exponent(of_time, pstdev(drawn)), Exponent(of_memory, 0.0)


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Least squares, of logarithms."""
    x = [math.log(size) for size in sizes]
    y = [math.log(value) for value in values]
    left, low = mean(x), mean(y)
    above = sum((a - left) * (b - low) for a, b in zip(x, y, strict=True))
    return above / sum((a - left) ** 2 for a in x)


def show(found: Mapping[str, Sequence[Point]]) -> None:
    """Print a row a curve."""
    print(
        f"\n{'curve':32}{'from':>10}{'to':>11}{'time s':>18}{'exponent':>16}"
        f"{'memory MB':>16}{'exponent':>10}   at most linear"
    )
    for name, points in found.items():
        of_time, of_memory = exponents(points)
        first, last = points[0], points[-1]
        seconds = f"{median(first.seconds):.3g} to {median(last.seconds):.3g}"
        megabytes = f"{first.memory_mb:,.0f} to {last.memory_mb:,.0f}"
        verdict = "yes" if of_time.is_linear and of_memory.is_linear else "NO"
        print(
            f"  {CURVES[name].title:30}{first.size:10,}{last.size:11,}{seconds:>18}"
            f"{of_time.value:8.2f} ± {2 * of_time.noise:5.2f}{megabytes:>16}{of_memory.value:10.2f}"
            f"   {verdict}"
        )
    print(
        f"Exponents are of the {UPPER} largest sizes; ± is twice their spread over repeats. At "
        f"most linear: not above {1 + TOLERANCE:g} by more than that, in time and in memory. "
        "Memory is what a process takes at most beyond what it has after the smallest such work; "
        f"below {FLOOR_MB:g} MB it counts as {FLOOR_MB:g}."
    )


if __name__ == "__main__":
    main()
