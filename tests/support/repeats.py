"""How often a test repeats what it looks at."""

from __future__ import annotations

import os


def repeats(usual: int) -> int:
    """Return `usual`, or a quarter of it with OPM_BRIEF, as in the cells of the version matrix."""
    return max(1, usual // 4) if os.environ.get("OPM_BRIEF") else usual
