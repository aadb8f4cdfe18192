"""``python -m compress``."""

from __future__ import annotations

import sys

from compress.commands.cli import main

sys.exit(main())
