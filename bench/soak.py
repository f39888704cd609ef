#!/usr/bin/env python3
"""A cluster under mixed load and random faults, and a verdict: no wrong text, no lost request, nothing leaks.

  soak.py MINUTES [--seed N] [--json report.json] [--bin build/release/bin]

A coordinator, 3 workers and a standby, real processes, each in its own network namespace where this machine can do that. Clients
stream, send long prompts, cancel, hang up, repeat requests with the same idempotency key, and come in bursts; every --every seconds a
fault strikes and is undone some seconds later. The coordinator and one worker are killed in the first half only, so that the second
shows how processes age. From time to time the load pauses: then nothing may be held. Ends with 0 if all is well, else with 1.
"""
import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "netem"))
import fault_rounds  # noqa: E402
import faults  # noqa: E402
import lab as labs  # noqa: E402
from soak_load import Load  # noqa: E402

MODEL = pathlib.Path(__file__).resolve().parents[1] / "models" / "seedling" / "seedling-q8_0.gguf"
# How often which fault comes, of those that this machine can do.
WEIGHTS = {"kill": 4, "stop": 3, "restart": 3, "slow": 2, "two": 1, "leave": 2, "drain": 2, "memory": 1, "coordinator": 2, "cut-both": 2,
           "cut-coordinator": 2, "cut-oneway": 2, "cut-edge": 2}
PROTECTED = 0            # the worker that is not killed in the second half
IDLE_EVERY_SECONDS = 120
MORE_THREADS, MORE_FDS = 3, 6          # than after the warm-up
MORE_RSS_SHARE, MORE_RSS_KIB = 0.10, 16 << 10
CHECKPOINTS_FOR_SLOPE = 5
WARM_UP_KIB = 64 << 10   # what a life may grow by while there are not enough checkpoints to tell growth from warming up


class Soak:
    def __init__(self, args, cluster, shape, load):
        self.args, self.cluster, self.shape, self.load = args, cluster, shape, load
        self.rng = random.Random(f"{args.seed}-faults")
        self.problems, self.injections, self.checkpoints = [], [], []

    def problem(self, text):
        self.problems.append(text)
        print(f"PROBLEM: {text}", file=sys.stderr, flush=True)

    def run(self):
        begun = time.monotonic()
        end, next_idle = begun + 60 * self.args.minutes, begun + min(30, 15 * self.args.minutes)
        self.load.start()
        try:
            while time.monotonic() < end:
                struck = time.monotonic()
                if struck > begun + 30 * self.args.minutes:
                    self.cluster.protected = {PROTECTED}
                self.strike(late=bool(self.cluster.protected))
                if time.monotonic() >= next_idle:
                    self.idle(time.monotonic() - begun)
                    next_idle = time.monotonic() + IDLE_EVERY_SECONDS
                time.sleep(max(0, min(end, struck + self.args.every) - time.monotonic()))
            self.idle(time.monotonic() - begun)
        finally:
            self.load.stop()
        self.judge()

    def strike(self, late):
        weights = {name: weight for name, weight in WEIGHTS.items()
                   if name in self.args.faults and not (late and name == "coordinator")}
        name, injection = self.rng.choices(list(weights), list(weights.values()))[0], faults.Injection()
        try:
            if len(self.cluster.stages()) < 2:
                self.cluster.await_healed()
            if name == "cut-edge" and len(self.cluster.stages()) < 2:  # on a busy machine one may be faster than a chain
                name = "cut-both"
            fault = faults.FAULTS[name]
            with self.load.tolerating(name == "coordinator"), fault.inject(self.cluster, self.rng, injection):
                print(f"{time.strftime('%T')} {injection.what}", file=sys.stderr, flush=True)
                time.sleep(self.rng.uniform(0.2, min(5, self.args.every / 2)))
            healed, _ = self.cluster.await_healed()
            self.injections.append({"fault": name, "what": injection.what, "healed": healed, **injection.facts})
        except labs.Failure as failure:
            self.problem(f"{injection.what or name}: {failure}")

    def idle(self, at):
        """The load pauses; nothing may be held then. Notes what the processes hold."""
        with self.load.paused():
            status = {}

            def nothing_held():
                status.clear()
                status.update(self.cluster.status())
                return (self.cluster.shape(status) and status["requests_running"] == status["requests_queued"] == 0
                        and status["kv_tokens_used"] == 0 and self.coherent(status))
            try:
                labs.wait_for("an idle cluster to hold nothing", 45, nothing_held, poll=0.2)
            except labs.Failure as failure:
                self.problem(f"{failure}: {json.dumps(status)[:1500]}")
            time.sleep(self.args.settle)  # idle connections go
            usage = {daemon.name: {"starts": daemon.starts, **(daemon.usage() or {})} for daemon in self.cluster.daemons()}
            self.checkpoints.append({"at": round(at, 1), "usage": usage, "state_bytes": self.state_bytes()})
            print(f"{time.strftime('%T')} idle: " + ", ".join(
                f"{name} {u.get('threads')} threads {u.get('fds')} fds {u.get('rss_kib', 0) >> 10} MiB" for name, u in usage.items()),
                file=sys.stderr, flush=True)

    @staticmethod
    def coherent(status):
        """The stages hold what the prefix cache knows of, to the token."""
        nodes = status["nodes"]
        ends = ([n for n in nodes if n["first_layer"] == 0 and n["last_layer"] > 0],
                [n for n in nodes if n["last_layer"] == status["layers"]])
        return all(sum(n["kv_tokens_used"] for n in end) == status["kv_tokens_cached"] for end in ends)

    def state_bytes(self):
        total = 0
        for folder in [self.cluster.state, *self.cluster.folders]:
            for file in folder.rglob("*"):
                with contextlib.suppress(OSError):
                    total += file.stat().st_size if file.is_file() else 0
        return total

    def judge(self):
        for daemon in self.cluster.daemons():
            self.judge_daemon(daemon.name)
        for name, problems in self.load.problems.items():
            for text, count in problems.most_common(5):
                self.problem(f"{name}: {count} times: {text}")
        if not self.load.counts["fine"]:
            self.problem("no request was served")

    def judge_daemon(self, name):
        """Against the first checkpoint, and of one life against its own first."""
        first, last = (self.checkpoints[i]["usage"][name] for i in (0, -1))
        if "fds" not in last or "fds" not in first:
            self.problem(f"{name} is not alive")
            return
        for what, more in (("threads", MORE_THREADS), ("fds", MORE_FDS)):
            if last[what] > first[what] + more:
                self.problem(f"{name}: {first[what]} {what} after the warm-up, {last[what]} at the end")
        life = [(c["at"] / 60, c["usage"][name]["rss_kib"]) for c in self.checkpoints
                if c["usage"][name]["starts"] == last["starts"] and "rss_kib" in c["usage"][name]]
        if len(life) >= CHECKPOINTS_FOR_SLOPE:
            life = life[1:]  # the first of a life may be its warm-up
            allowed = life[0][1] * MORE_RSS_SHARE + MORE_RSS_KIB
            slope = statistics.linear_regression(*zip(*life)).slope
            grown = slope * (life[-1][0] - life[0][0])
        else:
            allowed = WARM_UP_KIB
            grown = life[-1][1] - life[0][1]
        if grown > allowed:
            self.problem(f"{name}: resident memory grew by {grown / 1024:.0f} MiB since {life[0][0]:.0f} min")

    def report(self):
        by_fault = collections.Counter(injection["fault"] for injection in self.injections)
        return {"verdict": "FAILED" if self.problems else "fine", "seed": self.args.seed, "minutes": self.args.minutes,
                "requests": dict(self.load.counts), "by_kind": {kind: dict(counts) for kind, counts in self.load.by_kind.items()},
                "faults": dict(by_fault), "longest_gap": round(self.load.longest_gap, 2), "problems": self.problems,
                "injections": self.injections, "checkpoints": self.checkpoints}


def print_report(report):
    counts = report["requests"]
    print(f"seed {report['seed']}, {report['minutes']:g} minutes: {sum(report['faults'].values())} faults: "
          + ", ".join(f"{count} {name}" for name, count in sorted(report["faults"].items())))
    print(f"{sum(counts.values())} requests: " + ", ".join(f"{count} {name}" for name, count in counts.items())
          + f"; the longest wait for a token was {report['longest_gap']} s")
    first, last = report["checkpoints"][0]["usage"], report["checkpoints"][-1]["usage"]
    print("| process | threads | fds | MiB resident |\n| --- | --- | --- | --- |")
    for name in last:
        cells = [f"{first[name].get(key, '-')} to {last[name].get(key, '-')}" for key in ("threads", "fds")]
        rss = " to ".join(str(usage[name].get("rss_kib", 0) >> 10) for usage in (first, last))
        print(f"| {name} | {cells[0]} | {cells[1]} | {rss} |")
    for problem in report["problems"]:
        print(f"- {problem}")
    print(f"verdict: {report['verdict']}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("minutes", type=float)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[1] / "build" / "release" / "bin")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--every", type=float, default=10, help="seconds between faults")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--settle", type=float, default=3, help="seconds of idleness before processes are looked at")
    parser.add_argument("--faults", default=",".join(WEIGHTS), help="that may come")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    args.faults = args.faults.split(",")
    if unknown := set(args.faults) - set(WEIGHTS):
        parser.error(f"unknown faults {sorted(unknown)}: use {', '.join(WEIGHTS)}")
    return args


def main():
    args = parse_arguments()
    print(f"seed {args.seed}", flush=True)
    links = "cut"
    if why := labs.can_emulate_links():
        print(f"links are not cut: {why}", flush=True)
        links, args.faults = "plain", [name for name in args.faults if faults.FAULTS[name].links == "plain"]
    with labs.Lab() as lab:
        requests = Load.requests()
        texts = fault_rounds.expected_texts(lab, args.bin, args.model, requests)
        # What is kept for audits fills within seconds, so that what grows afterwards is a leak.
        with fault_rounds.FaultCluster(lab, args.bin, args.model, links=links, worker_flags=("--audit-memory", "4MiB")) as cluster:
            if "drain" in args.faults and cluster.ctl("drain", "--help") is None:
                args.faults.remove("drain")
            cluster.await_http(300)
            _, shape = cluster.await_healed()
            print(f"{shape[0]} stages, {shape[1]} standby; {os.getloadavg()[0]:.1f} load average", flush=True)
            soak = Soak(args, cluster, shape, Load(cluster, requests, texts, args.clients, args.seed))
            soak.run()
            report = soak.report()
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))
    sys.exit(report["verdict"] != "fine")


if __name__ == "__main__":
    main()
