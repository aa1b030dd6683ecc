"""What the speed benchmark prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, median

from speed_machine import BF16, PRECISIONS, TUNED, Limits
from speed_turns import Round
from speed_variants import Workload

Rounds = Mapping[str, Sequence[Round]]


def show_limits(limits: Limits) -> None:
    """Print what the machine can do."""
    shapes = next(iter(limits.values()))
    print(f"\n{'matrix products, GFLOP/s':34}" + "".join(f"{shape:>22}" for shape in shapes))
    for precision, rates in limits.items():
        print(f"  {precision:32}" + "".join(f"{rate:22,.0f}" for rate in rates.values()))
    print('  "tuned" is f32 as the package computes it; shares below are of the better of the two,')
    print("  measured anew in each round")


def show_workload(
    name: str,
    workload: Workload,
    rounds: Rounds,
    flops: float | None,
    limits: Sequence[Sequence[float]],
) -> None:
    """Print the rows of a workload.

    ``flops`` is the naive arithmetic of a token; ``limits`` is what each of `PRECISIONS` reached
    in every round.
    """
    plain = next(iter(rounds))
    columns = f"{'tokens/s':>13}"
    columns += f"{'GFLOP/s':>9}{'of limit':>9}" if flops else ""
    print(f'\n{name:34}{columns}{"peak MB":>9}   times "{plain}", by rounds')
    for variant, turns in rounds.items():
        rate = median(turn.rate for turn in turns)
        ratios = ratios_of(turns, rounds[plain])
        row = f"  {variant:32}{rate:13,.4g}"
        if flops:
            place = PRECISIONS.index(workload.variants[variant].limit)
            shares = [
                1e-9 * flops * turn.rate / own[place]
                for turn, own in zip(turns, limits, strict=True)
            ]
            row += f"{1e-9 * flops * rate:9,.0f}{median(shares):9.0%}"
        row += f"{turns[-1].peak_mb:9,.0f}"
        print(f"{row}   {median(ratios):6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")
    if workload.kind == "likelihood":
        for line in agreement(workload, rounds):
            print(f"  {line}")
    if workload.kind == "sampling":
        lengths = [
            f"{mean(turn.figures[0] for turn in turns):.1f} ({variant})"
            for variant, turns in rounds.items()
        ]
        print(f"  words a sentence: {', '.join(lengths)}")


def ratios_of(turns: Sequence[Round], plain: Sequence[Round]) -> list[float]:
    """Rates over those of the plain variant, between neighbours in time."""
    return [turn.rate / reference.rate for turn, reference in zip(turns, plain, strict=True)]


def agreement(workload: Workload, rounds: Rounds) -> list[str]:
    """Whether likelihoods agree: with the plain one, and bf16 with f32 at equal noise."""
    plain = next(iter(rounds))
    of_plain = [value for turn in rounds[plain] for value in turn.figures]
    errors = [error for turn in rounds[plain] for error in turn.errors]
    # of two estimates of a mean over sentences, each with its own noise
    error = math.sqrt(2 * sum(e**2 for e in errors)) / len(errors)
    exact, lines = None, []
    for name, turns in rounds.items():
        found = [value for turn in turns for value in turn.figures]
        if name != plain and workload.variants[name].limit == TUNED:
            exact = found
            worst = max(abs(a - b) for a, b in zip(found, of_plain, strict=True))
            gap = mean(found) - mean(of_plain)
            noise = f"Monte-Carlo error {error:.4f}" if workload.own_noise else "equal noise"
            lines.append(
                f"{name}: mean NLL {mean(found):.3f}, {gap:+z.4f} from the plain one's "
                f"({noise}; worst sentence {worst:.4f})"
            )
        elif workload.variants[name].limit == BF16 and exact is not None:
            gaps = [a - b for a, b in zip(found, exact, strict=True)]
            lines.append(
                f"{name}: worst |NLL difference| from f32 at equal noise "
                f"{max(map(abs, gaps)):.4f} nats (mean {mean(gaps):+z.4f})"
            )
    return lines
