"""``python -m uncollapse.jobs.worker`` reads a job from stdin and does it.

What it says goes to stderr, and there the last line is what went wrong.
"""

from __future__ import annotations

import pickle
import sys
import traceback

from uncollapse.errors import RunError, UncollapseError
from uncollapse.jobs.job import figures, one_line


def main() -> None:
    """Do the job; the exit code is that of its error."""
    try:
        print(figures(pickle.load(sys.stdin.buffer).do()), flush=True)
    except UncollapseError as error:
        _fail(error, error.exit_code)
    except OSError as error:
        _fail(error, RunError.exit_code)
    except Exception as error:  # its traceback is of use in a log, to whoever mends the program
        traceback.print_exc()
        _fail(error, RunError.exit_code)


def _fail(error: Exception, code: int) -> None:
    print(one_line(error), file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
