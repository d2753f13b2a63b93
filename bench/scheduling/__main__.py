"""`python -m bench.scheduling [--quick] [--json FILE] [--only W3,low] [--report FILE]`: policies against each other, simulated.

Every arm sees the same programs on the same engines, seed by seed. Figures are medians over seeds; the report has a table with
all columns and paired intervals for each workload.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from bench.records import table, write
from bench.scheduling.cases import CASES, Report
from fairlead.runtime.simulation.compare import markdown, rows
from fairlead.runtime.simulation.plots import svg

SEEDS = 10
QUICK_SEEDS = 2


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m bench.scheduling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds and small loads: a look, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the tables as Markdown, and charts beside it")
    parser.add_argument("--only", metavar="NAMES", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"instead of {SEEDS}")
    parser.add_argument("--processes", type=int, metavar="N", default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := [name for name in wanted if name not in CASES]:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(CASES)}")

    seeds = arguments.seeds or (QUICK_SEEDS if arguments.quick else SEEDS)
    report = Report(tuple(range(1, seeds + 1)), arguments.quick, arguments.processes)
    for name in wanted:
        shown, since = len(report.comparisons), time.perf_counter()
        CASES[name](report)
        for title, comparison, base in report.comparisons[shown:]:
            print(f"\n{title}\n{markdown(rows(comparison, base))}", flush=True)
        print(f"\n{name}: {time.perf_counter() - since:.0f} s", flush=True)
    print(f"\n{table(report.records)}")
    if arguments.json:
        write(report.records, arguments.json)
    if arguments.report:
        _write_report(report, arguments.report)
    return 0


def _write_report(report: Report, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    for name, chart in report.charts.items():
        file.with_name(f"{name}.svg").write_text(svg(chart))
    parts = [f"![{chart.title}]({name}.svg)" for name, chart in report.charts.items()]
    parts += [f"## {title}\n\n{markdown(rows(found, base))}" for title, found, base in report.comparisons]
    file.write_text("# Scheduling\n\n" + "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    sys.exit(main())
