"""Where the real data lie, for the tests beside this file."""

import os
from pathlib import Path

DATA = Path(os.environ.get("BBH_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
