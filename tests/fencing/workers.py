"""What the workers of these tests have to find: the project beside this file, and what that imports."""

from __future__ import annotations

import os
from pathlib import Path

_TESTS = Path(__file__).parents[1]

IMPORTABLE = os.pathsep.join(str(_TESTS / folder) for folder in ("fencing", "integration", "docs"))
