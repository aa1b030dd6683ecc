"""The program, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from uncollapse import cli

Call = Callable[..., tuple[int, str, str]]


def call_program(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the program with these arguments; gives exit code, stdout and stderr."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["uncollapse", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err
