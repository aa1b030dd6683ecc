"""Start a benchmark's processes, as torchrun would, and gather what they print."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

WAIT = 280  # seconds


def launch(program: str, task: str, count: int) -> list[str]:
    """The last line of each of ``count`` processes that run ``program --work task`` together.

    Raises
    ------
    SystemExit
        If one of them fails, or does not end in `WAIT` seconds.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = []
    for rank in range(count):
        variables = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        variables |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        running.append(
            subprocess.Popen(
                [sys.executable, program, "--work", task],
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    try:
        said = [process.communicate(timeout=WAIT)[0] for process in running]
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{count} processes took more than {WAIT} s") from None
    finally:
        for process in running:  # one may wait for another that has died
            process.kill()
            process.wait()
    if any(process.returncode for process in running):
        raise SystemExit(f"one of {count} processes failed")
    return [words.splitlines()[-1] for words in said]
