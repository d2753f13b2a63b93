"""`python -m bench.overhead [--quick] [--json FILE] [--samples FILE]`: the whole comparison, in one run.

Installs the peers (once, under .bench/), starts all arms, lets them take turns, and reports medians. Needs a network the first
time only; a peer that cannot be installed or fails at a shape is named at the end and left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from bench.overhead import figures, standing
from bench.overhead.arms import FAIRLEAD, FLOOR, PEERS, Arm, ArmError, RunningArm, install, started
from bench.overhead.measure import Runs, take_turns
from bench.overhead.waiting import waiting_records
from bench.records import Record, record, table, write

REPEATS = 5
QUICK_REPEATS = 2


def main() -> int:
    """Run the bench; returns 1 if Fairlead's own arm failed at something."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_REPEATS} repeats and no peers: a look, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records")
    parser.add_argument("--samples", type=Path, metavar="FILE", help="write every single sample, of all arms")
    parser.add_argument("--peers", metavar="NAMES", help="only these peers, separated by commas; an empty text means none")
    arguments = parser.parse_args()
    wanted = "" if arguments.quick and arguments.peers is None else arguments.peers
    peers = [peer for peer in PEERS if wanted is None or peer.name in wanted.split(",")]

    repeats = QUICK_REPEATS if arguments.quick else REPEATS
    runs, ready = asyncio.run(_compare(peers, repeats))
    records, failures = figures.figures(runs), list(runs.failures)
    others = [arm for arm in ready if arm in PEERS]
    for part in (partial(waiting_records, repeats), partial(_import_records, others, repeats), partial(_help_records, repeats)):
        try:
            records += part()
        except ArmError as error:
            failures.append(f"{FAIRLEAD.name}: {error}")
    records.append(_distributions(others))
    print(table(records))
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    if arguments.json:
        write(records, arguments.json)
    if arguments.samples:
        arguments.samples.write_text(json.dumps(_plain(runs), indent=1) + "\n")
    return int(any(failure.startswith("fairlead") for failure in failures))


async def _compare(peers: list[Arm], repeats: int) -> tuple[Runs, list[Arm]]:
    """The samples of all arms, and the arms that could be started."""
    failures: list[str] = []
    async with AsyncExitStack() as stack:
        arms: list[RunningArm] = []
        for arm in (FAIRLEAD, FLOOR, *peers):
            try:
                _say(f"preparing {arm.name}")
                install(arm)
                arms.append(await stack.enter_async_context(started(arm)))
            except ArmError as error:
                failures.append(str(error))
        runs = await take_turns(arms, repeats, _say)
    return Runs(runs.samples, [*failures, *runs.failures]), [running.arm for running in arms]


def _import_records(peers: list[Arm], repeats: int) -> list[Record]:
    arms = (FAIRLEAD, *peers)
    for arm in arms:
        standing.import_seconds(arm)  # the first import writes bytecode and fills the disk cache
    taken: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for _ in range(repeats):
        for arm in arms:
            taken[arm.name].append(standing.import_seconds(arm))
    own = taken.pop(FAIRLEAD.name)
    return [record("overhead", "import_s", own, "s", target=0.5, peers=taken)]


def _help_records(repeats: int) -> list[Record]:
    standing.help_seconds()
    return [record("overhead", "help_s", [standing.help_seconds() for _ in range(repeats)], "s", target=0.3)]


def _distributions(peers: list[Arm]) -> Record:
    counts = {peer.name: [float(standing.installed_distributions(peer))] for peer in peers}
    return record("overhead", "core_distributions", [standing.core_distributions()], "count", target=41, peers=counts)


def _plain(runs: Runs) -> list[dict[str, object]]:
    return [
        {"arm": name, "shape": shape, "size": size, "seconds": [s.seconds for s in taken], "space": [s.space for s in taken]}
        for (name, shape, size), taken in runs.samples.items()
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
