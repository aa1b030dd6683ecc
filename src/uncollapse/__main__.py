"""``python -m uncollapse``."""

from uncollapse.cli import main

main()
