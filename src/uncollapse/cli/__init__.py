"""The same verbs from a shell. Data goes to stdout, everything else to stderr.

Nothing heavy is imported until a verb needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys

# in the order of --help
from uncollapse.cli import (  # noqa: F401
    data,
    machine,
    measuring,
    rating,
    reproducing,
    responding,
    training,
    using,
    variables,
)
from uncollapse.cli.app import app, report_errors

__all__ = ["app", "main", "report_errors"]


def main() -> None:
    """Run the program."""
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    with report_errors():
        sys.exit(app(standalone_mode=False) or 0)
