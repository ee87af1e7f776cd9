"""`python -m bench`: every figure of docs/performance.md from one run, as JSON lines. Progress is on standard error."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime

import uvloop

from bench.fill import ends, fill
from bench.latency import measure
from bench.loop import bench_loop
from bench.open_orders import Sweeping, preload
from bench.report import Report, machine, middle, percentile
from bench.runs import Run, detecting, raw_limit, throughput
from bench.servers import POSTGRES, TOPICS, Servers, prepare, running
from bench.stream import Stream
from tests.support.kafka import kafka_jars, needed_tools
from tests.support.requires import missing


async def bench(servers: Servers, options: argparse.Namespace, report: Report) -> None:
    await prepare(servers)
    stream = Stream(options.events, options.seed, datetime.now(UTC))
    size = await fill(servers, stream, report)
    raw, detector = await compare(servers, stream, options.repeats, report)
    rate, limit = middle([run.rate for run in detector]), middle([run.rate for run in raw])
    report.figure("raw_limit", limit, "events/s", **_detail(raw), body_bytes=round(size / stream.events))
    report.figure("detector", rate, "events/s", **_detail(detector), incidents=stream.incidents)
    report.figure("peak_memory", max(run.peak_mb for run in detector), "MB", of="the detector's process")
    if options.orders_open:
        await many_open(servers, stream, options, report)
    await latency(servers, rate / 2, options, report)  # last: it appends to the topics
    report.figure(
        "ratio",
        middle([b.rate / a.rate for a, b in zip(raw, detector, strict=True)]),
        "detector / raw limit",
        goal=0.6,
        by_own_cpu=round(middle([a.cpu_us[0] / b.cpu_us[0] for a, b in zip(raw, detector, strict=True)]), 3),
        pairs=[round(b.rate / a.rate, 3) for a, b in zip(raw, detector, strict=True)],
        settings=POSTGRES,
        partitions={spec.name: spec.partitions for spec in TOPICS},
        machine=machine(servers.postgres.psql("SHOW server_version"), _kafka_version()),
    )


async def compare(servers: Servers, stream: Stream, repeats: int, report: Report) -> tuple[list[Run], list[Run]]:
    """Both in turn, so that whatever else the machine does hits both."""
    raw: list[Run] = []
    detector: list[Run] = []
    for turn in range(1, repeats + 1):
        raw.append(await raw_limit(servers))
        report.progress(f"raw limit {turn}/{repeats}: {raw[-1].rate:,.0f} events/s")
        detector.append(await throughput(servers, servers.database("detector"), stream.incidents))
        report.progress(f"detector {turn}/{repeats}: {detector[-1].rate:,.0f} events/s")
    return raw, detector


async def many_open(servers: Servers, stream: Stream, options: argparse.Namespace, report: Report) -> None:
    """The same backlog with many orders open and with none, in turn; then sweeps of the timers of the many."""
    template = servers.database("many_open")
    await preload(servers, template, options.orders_open, 2 * options.due, report)
    empty: list[Run] = []
    full: list[Run] = []
    for turn in range(1, options.repeats + 1):
        empty.append(await throughput(servers, servers.database("few"), stream.incidents))
        full.append(await throughput(servers, servers.database("many", "many_open"), stream.incidents))
        report.progress(f"{options.orders_open:,} open {turn}/{options.repeats}: {full[-1].rate:,.0f} events/s")
    rate = middle([run.rate for run in full])
    report.figure("detector_many_open", rate, "events/s", **_detail(full), orders_open=options.orders_open)
    report.figure(
        "cost_many_open",
        middle([few.rate / many.rate for few, many in zip(empty, full, strict=True)]),
        "cost per event / with none open",
        us_per_event=[round(1e6 / run.rate, 2) for run in full],
        us_per_event_none_open=[round(1e6 / run.rate, 2) for run in empty],
        peak_mb=max(run.peak_mb for run in full),
    )
    await sweeps(servers, servers.postgres.url("many"), options, report)


async def sweeps(servers: Servers, database: str, options: argparse.Namespace, report: Report) -> None:
    """What timers cost: nothing due, due and quiet, due and late."""
    sweeping = Sweeping(servers, database)
    detail = {"timers": await sweeping.timers()}
    try:
        await sweeping.seconds(0, opens=False)
        idle = [await sweeping.seconds(0, opens=False) for _ in range(5)]
        report.figure("sweep_nothing_due", middle(idle) * 1000, "ms", **detail)
        for name, opens in (("sweep_quiet", False), ("sweep_opens", True)):
            found = [await sweeping.seconds(options.due, opens) for _ in range(2)]
            per_thousand = [seconds / options.due * 1000 for seconds in found]
            report.figure(name, middle(per_thousand), "s per 1,000 due", **detail, due=options.due, runs=found)
        if (told := await sweeping.waiting()) != 2 * options.due:
            raise RuntimeError(f"the sweeps told {told} incidents, {2 * options.due} orders were late")
    finally:
        await sweeping.close()


async def latency(servers: Servers, rate: float, options: argparse.Namespace, report: Report) -> None:
    """At half of what the detector does, on the database that its last run left."""
    report.progress(f"latency at {rate:,.0f} events/s for {options.seconds:.0f} s")
    async with detecting(servers, servers.postgres.url("detector")) as detector:
        inputs = sum((await ends(servers)).values())
        await detector.applied(inputs, 0)
        await asyncio.sleep(3.0)
        found = await measure(servers, detector, rate, options.seconds, options.seed + 1)
    detail = {"events_per_second": round(rate), "incidents": len(found), "max_ms": round(max(found) * 1000)}
    for percent in (50, 99):
        report.figure(f"latency_p{percent}", percentile(found, percent) * 1000, "ms", **detail)


def _detail(runs: list[Run]) -> dict[str, object]:
    return {
        "events": runs[0].events,
        "runs": [round(run.rate) for run in runs],
        "us_per_event": round(middle([1e6 / run.rate for run in runs]), 2),
        "cpu_us_per_event": {
            name: middle([run.cpu_us[index] for run in runs])
            for index, name in enumerate(("own", "postgresql", "kafka"))
        },
        "state_bytes": round(middle([run.state_bytes for run in runs])),
    }


def _kafka_version() -> str:
    return kafka_jars().name


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure; JSON lines on standard output.")
    parser.add_argument("--events", type=int, default=400_000, help="length of the backlog (default 400000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the figures are medians (default 3)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long latency is measured (default 20)")
    parser.add_argument("--orders-open", type=int, default=1_000_000, help="0 leaves this part out (default 1000000)")
    parser.add_argument("--due", type=int, default=20_000, help="timers of one sweep (default 20000)")
    parser.add_argument("--sms-rate", type=float, default=200.0, help="incidents/s from event to SMS (default 200)")
    parser.add_argument("--backlog", type=int, default=5_000, help="late orders for all four services (default 5000)")
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="a try-out in a minute: small, once; no figures to quote")
    options = parser.parse_args()
    if options.quick:
        options.events, options.repeats, options.seconds = 40_000, 1, 6.0
        options.orders_open, options.due = min(options.orders_open, 20_000), 2_000
        options.sms_rate, options.backlog = 20.0, 400
    return options


def main() -> None:
    options, report = _options(), Report()
    if absent := missing(*needed_tools()):
        sys.exit("the bench needs " + " and ".join(absent))
    report.progress("starting Kafka and PostgreSQL")
    with running() as servers:
        uvloop.run(bench(servers, options, report))
    report.progress("all four services, on a broker and a database of their own")
    with running() as servers:
        uvloop.run(bench_loop(servers, options.sms_rate, options.seconds, options.backlog, report))


if __name__ == "__main__":
    main()
