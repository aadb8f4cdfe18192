"""``python -m compress``."""
# PYTHON_ARGCOMPLETE_OK: what the shell looks for before it asks argcomplete how a line may go on.

from __future__ import annotations

import sys

from compress.commands.cli import main

sys.exit(main())
