"""The machine that a benchmark runs on: what it is, and how fast its matrix products are."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speed_turns import Turns

FILES = ("--json", "--figure", "--read")  # options that name a file
F32, TUNED, BF16 = "f32", "f32, tuned", "bf16"
SECONDS = 0.5  # of every measurement
ROUNDS = 5
MACHINE = "machine"  # the variant that measures limits
TURN = 0.1  # seconds of every measurement within a round
PRECISIONS = (F32, TUNED, BF16)
Limits = dict[str, dict[str, float]]  # by precision, then by shape, GFLOP/s


def describe() -> dict[str, Any]:
    """What ran where and when."""
    import torch

    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next((x.split(": ")[1] for x in lines if x.startswith("model name")), name)
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "commit": commit(),
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "hardware": name,
        "threads": torch.get_num_threads(),
        "kernels": has_kernels(),
        "load at the start": load,
    }


def command(script: str, arguments: Sequence[str] | None) -> str:
    """What was run, without the names of the user's files."""
    words = [str(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    for place, word in enumerate(words[:-1]):
        if word in FILES:
            words[place + 1] = "FILE"
    return " ".join(["python", f"benchmarks/{script}", *words])


def commit() -> str | None:
    """Of the code, where it is known; with a + if files have changed since."""
    folder = Path(__file__).parent
    try:
        found, changes = (
            subprocess.run(
                ["git", "-C", folder, *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found + ("+" if changes else "")


def has_kernels() -> bool:
    """Whether there are native kernels to choose."""
    try:
        from uncollapse.native import kernels
    except ImportError:
        return False
    return kernels() is not None


def gemm_limits(vocabulary_size: int, seconds: float = SECONDS, square: int = 2048) -> Limits:
    """Rates of matrix products: as PyTorch comes, as the package has them, and in bf16.

    The three take turns; the best of some rounds counts, since other work can only slow one.
    """
    import torch

    from uncollapse.tuning import tuned_process

    modes: dict[str, tuple[Any, Callable[[], Any]]] = {
        F32: (torch.float32, nullcontext),
        TUNED: (torch.float32, tuned_process),
        BF16: (torch.bfloat16, nullcontext),
    }
    shapes = {
        f"logits 736 x 256 x {vocabulary_size:,}": (736, 256, vocabulary_size),
        f"{square} x {square} x {square}": (square, square, square),
    }
    found: Limits = {name: dict.fromkeys(shapes, 0.0) for name in modes}
    for shape, (rows, inner, width) in shapes.items():
        a, b = torch.randn(rows, inner), torch.randn(width, inner)
        for turn in range(ROUNDS + 1):
            for name, (dtype, settings) in modes.items():
                with settings():
                    rate = _rate(a.to(dtype), b.to(dtype), seconds / ROUNDS)
                if turn:  # the first one warms up
                    found[name][shape] = max(found[name][shape], rate)
    return found


def _rate(a: Any, b: Any, seconds: float) -> float:
    """GFLOP/s of a · bᵀ into one reused array."""
    import torch

    product = torch.empty(len(a), len(b), dtype=a.dtype)
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        torch.mm(a, b.t(), out=product)
        count += 1
    return 2e-9 * len(a) * len(b) * a.shape[1] * count / passed


def limits_in_turns(turns: Turns, *, types: int, seconds: float = TURN) -> None:
    """Take turns at what the machine can do: the best rate of each of `PRECISIONS`."""
    while turns.next():
        found = gemm_limits(types, seconds)
        turns.done(0, figures=[max(found[name].values()) for name in PRECISIONS])
