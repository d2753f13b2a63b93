"""Runs every bench, one after the other, and merges their records."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

BENCHES = ("overhead", "scheduling")


def main() -> int:
    """Run them all; returns 1 if one failed. The records of the others are kept."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repeats, no peers: a look, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records of all benches as one list")
    arguments = parser.parse_args()

    records: list[object] = []
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in BENCHES:
            print(f"== {name}", flush=True)
            file = Path(folder, f"{name}.json")
            command = [sys.executable, "-m", f"bench.{name}", "--json", str(file), *(["--quick"] if arguments.quick else [])]
            status |= int(subprocess.run(command, check=False).returncode != 0)
            records += json.loads(file.read_text()) if file.exists() else []
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
