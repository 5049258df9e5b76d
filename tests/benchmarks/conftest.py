"""Makes `benchmarks` importable, and it alone: with the repository's root on the path `jobs` would
be found a second time."""

import importlib.util
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "benchmarks"

spec = importlib.util.spec_from_file_location(
    "benchmarks", PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
)
assert spec is not None
sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
