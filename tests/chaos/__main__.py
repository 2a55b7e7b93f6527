"""`python -m tests.chaos --seed N --count M [--cluster]`: histories of faults, each from its seed."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from tests.chaos.drawing import make_plan
from tests.chaos.history import Outcome, describe, run_history
from tests.chaos.servers import Servers


def main() -> int:
    """Run histories; 1 if something was wrong in one of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--count", type=int, default=20, help="how many histories, with one seed each (default 20)")
    parser.add_argument("--cluster", action="store_true", help="on three servers, with three copies of everything")
    parser.add_argument(
        "--fault", default="", help="only seeds whose histories have this fault planned, say 'lose tail'"
    )
    parser.add_argument("--keep", type=Path, help="keep logs and notes in this folder")
    parser.add_argument("--plan", action="store_true", help="only show what would happen")
    options = parser.parse_args()
    seeds = [*islice(_seeds(options.seed, options.fault, cluster=options.cluster), options.count)]
    if options.plan:
        for seed in seeds:
            print(describe(make_plan(seed, cluster=options.cluster)))
        return 0
    logging.disable()  # what the harness sees of an outage is no news
    with tempfile.TemporaryDirectory(prefix="corral-chaos-") as folder:
        return asyncio.run(_run(seeds, options.cluster, options.keep or Path(folder)))


def _seeds(first: int, fault: str, *, cluster: bool) -> Iterator[int]:
    for seed in count(first):
        if not fault or any(fault == one.what for one in make_plan(seed, cluster=cluster).faults):
            yield seed


async def _run(seeds: list[int], cluster: bool, folder: Path) -> int:
    # Told to end, it ends what it has started, too; in the background a shell lets Ctrl-C be ignored.
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    began, outcomes, broken = time.monotonic(), [], []
    for seed in seeds:
        place = folder / f"{'cluster' if cluster else 'server'}-{seed}"
        shutil.rmtree(place, ignore_errors=True)
        plan = make_plan(seed, cluster=cluster)
        print(describe(plan), flush=True)
        servers = Servers(place / "servers", cluster=cluster)
        try:
            await servers.start()
            outcome = await run_history(plan, servers, place / "history")
        except Exception as error:  # noqa: BLE001  # the next history may do better
            print(f"  seed {seed} came to no end: {error!r}".replace("\\n", "\n"), flush=True)
            broken.append(seed)
            continue
        finally:
            await servers.stop()
            shutil.rmtree(place / "servers", ignore_errors=True)
        outcomes.append(outcome)
        _show(outcome)
    return _sum_up(outcomes, broken, time.monotonic() - began)


def _show(outcome: Outcome) -> None:
    found = outcome.findings
    for text in outcome.struck:
        print(f"  struck: {text}")
    for text in found.wrong:
        print(f"  WRONG: {text}")
    print(
        f"  {'WRONG' if found.wrong else 'ok'} in {outcome.seconds:.1f} s: {found.runs} runs {dict(found.outcomes)}, "
        f"{found.tasks} tasks, {found.executions} executions, {found.extra} more than without faults, "
        f"{found.rounds} retries",
        flush=True,
    )


def _sum_up(outcomes: list[Outcome], broken: list[int], seconds: float) -> int:
    wrong = [outcome.plan.seed for outcome in outcomes if outcome.findings.wrong]
    faults = Counter(fault.what for outcome in outcomes for fault in outcome.plan.faults)
    print(
        f"{len(outcomes) + len(broken)} histories in {seconds / 60:.0f} min: "
        f"{sum(outcome.findings.runs for outcome in outcomes)} runs, "
        f"{sum(outcome.findings.tasks for outcome in outcomes)} tasks, "
        f"{sum(outcome.findings.executions for outcome in outcomes)} executions, "
        f"{sum(outcome.findings.extra for outcome in outcomes)} of them because of faults, "
        f"{sum(len(outcome.struck) for outcome in outcomes)} faults"
    )
    print(f"planned: {', '.join(f'{what} {count}' for what, count in faults.most_common())}")
    print(f"wrong: {wrong or 'none'}; came to no end: {broken or 'none'}")
    return 1 if wrong or broken else 0


if __name__ == "__main__":
    sys.exit(main())
