#!/usr/bin/env python3
"""Honest workers are found honest: mixed nodes, all codecs, batches of 1 to 16, restarts, failovers and cancelled requests.

  honest.py [--steps 100000] [--codecs lossless,f16,...] [--model FILE] [--bin build/release/bin] [--json result.json]

For each codec a cluster of a coordinator and four workers (one a standby) that compute with other kernels and numbers of threads. Clients
come and go, some hang up in the middle; every --every seconds a fault strikes (faults.py). All chunks are audited (the rules' floor is 1).
Exit code 1: a mismatch, a dispute, a refused receipt, an eviction, or a voided entry.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import re
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "netem"))
import fault_cluster  # noqa: E402
import faults  # noqa: E402
import lab as labs  # noqa: E402
from stream_clients import Stream, perform  # noqa: E402

MODEL = pathlib.Path(__file__).resolve().parents[1] / "models" / "seedling" / "seedling-q8_0.gguf"
CODECS = "lossless,f16,int8,transparent,balanced,small,auto"
# Threads and kernels of the workers; those that this machine cannot do become others (--kernels).
NODES = ((1, "scalar"), (2, "avx2"), (2, "scalar"), (1, "avx2"))
FAULTS = {"kill": 3, "restart": 2, "leave": 2, "drain": 1, "stop": 1, "coordinator": 1}
RULES = "[audit]\nfloor = 1.0\n[escrow]\nseconds = 2\n"
MOST_STREAMS = 16
COUNTED = ("efedllm_steps_total", "efedllm_node_tokens_total", "efedllm_audits_total", "efedllm_receipts_total",
           "efedllm_receipt_chunks_total", "efedllm_failovers_total")
DRAIN_SECONDS = 600  # for what waits to be audited at the end


class Mixed(fault_cluster.FaultCluster):
    def worker_compute(self, number):
        threads, kernels = NODES[number]
        return ["--threads", threads, "--kernels", kernels]

    def metrics(self):
        """By name and labels, of those that are counted."""
        text = labs.get(self.url + "/metrics") or ""
        return {name: float(value) for name, value in re.findall(r"^(\S+(?:{.*})?) (\S+)$", text, re.MULTILINE)
                if name.partition("{")[0] in COUNTED}


class Counters:
    """Sums over the lives of a coordinator: a counter that fell began anew."""

    def __init__(self, cluster):
        self.cluster, self.last, self.sums = cluster, {}, collections.Counter()

    def read(self):
        now = self.cluster.metrics()
        for name, value in now.items():
            before = self.last.get(name, 0)
            self.sums[name] += value - before if value >= before else value
        self.last |= now
        return self.sums

    def sum(self, name, label=""):
        return int(sum(value for key, value in self.sums.items() if key.partition("{")[0] == name and label in key))


class Clients:
    """Between 1 and MOST_STREAMS at once: how many changes every few seconds."""

    def __init__(self, cluster, seed):
        self.cluster, self.wanted, self.over = cluster, 1, threading.Event()
        self.counts, self.lock = collections.Counter(), threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(i, random.Random(f"{seed}-{i}"))) for i in range(MOST_STREAMS)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def _run(self, number, rng):
        while not self.over.is_set():
            if number >= self.wanted:
                time.sleep(0.1)
                continue
            # Some prompts begin alike, so that sequences fork.
            prompt = "Once upon a time there was a fox named Milo. " * rng.choice((1, 1, 3, 6)) + rng.choice(("He", "She", "They"))
            body = {"prompt": prompt[:900], "max_tokens": rng.choice((5, 40, 100, 250)), "ignore_eos": True, "stream": True,
                    "temperature": 0.8, "seed": rng.randrange(1000), "n": rng.choice((1, 1, 1, 2))}
            hang_up = rng.randrange(1, 30) if rng.random() < 0.2 else None
            stream = perform(Stream(body), self.cluster, hang_up_after=hang_up)
            with self.lock:
                self.counts["cancelled" if not stream.over else "failed" if stream.failed else "complete"] += 1
            if stream.failed:
                time.sleep(0.3)


class Run:
    def __init__(self, lab, args, codec):
        rules = lab.folder / f"rules-{codec}.toml"
        rules.write_text(RULES)
        self.args, self.codec, self.rng = args, codec, random.Random(f"{args.seed}-{codec}")
        self.cluster = Mixed(lab, args.bin, args.model, workers=len(NODES), standby=1,
                             coordinator_flags=["--codec", codec, "--incentive-rules", rules])
        self.injections = collections.Counter()

    def run(self, steps):
        with self.cluster as cluster:
            cluster.await_healed(seconds=600)
            self.counters, clients = Counters(cluster), Clients(cluster, f"{self.args.seed}-{self.codec}")
            clients.start()
            try:
                self.strain(clients, steps)
            finally:
                clients.stop()
            cluster.await_healed()
            self.await_audited()
            return self.result(clients)

    def strain(self, clients, steps):
        struck = changed = time.monotonic()
        while self.counters.sum("efedllm_steps_total") < steps:
            time.sleep(0.5)
            self.counters.read()
            now = time.monotonic()
            if now - changed > 4:
                clients.wanted, changed = self.rng.randint(1, MOST_STREAMS), now
            if now - struck > self.args.every:
                self.strike()
                struck = time.monotonic()

    def strike(self):
        name, injection = self.rng.choices(list(FAULTS), list(FAULTS.values()))[0], faults.Injection()
        with faults.FAULTS[name].inject(self.cluster, self.rng, injection):
            time.sleep(self.rng.uniform(0.2, 1.5))
        self.cluster.await_healed()
        self.injections[name] += 1

    def await_audited(self):
        def idle():
            self.counters.read()
            return self.cluster.metric("efedllm_audits_waiting") == 0
        labs.wait_for("all that was picked to be audited", DRAIN_SECONDS, idle, poll=1)
        time.sleep(5)  # until what follows is in the ledger
        self.counters.read()

    def result(self, clients):
        def entries(kind):
            return self.cluster.ctl("ledger", "show", "--kind", kind, "-n", "1000000", timeout=60) or []
        changes = [entry["memo"]["to"] for entry in entries("trust") if "to" in entry["memo"]]
        counted = self.counters
        return {"codec": self.codec, "steps": counted.sum("efedllm_steps_total"), "rows": counted.sum("efedllm_node_tokens_total"),
                "failovers": counted.sum("efedllm_failovers_total"), "faults": dict(self.injections), "requests": dict(clients.counts),
                "audits": {what: counted.sum("efedllm_audits_total", f'"{what}"') for what in
                           ("honest", "lied", "withheld", "undecidable", "dropped")},
                "receipts": {name.partition('"')[2].rstrip('"}'): int(value) for name, value in counted.sums.items()
                             if name.startswith("efedllm_receipts_total") and value},
                "disputed": counted.sum("efedllm_receipt_chunks_total", '"disputed"'), "changes": dict(collections.Counter(changes)),
                "posts": len(entries("post")), "voids": [entry["memo"] for entry in entries("void")], "evidence": len(entries("evidence"))}


def judge(result):
    """What an honest cluster must not have."""
    problems = [f"audits: {what}" for what in ("lied", "withheld", "undecidable") if result["audits"][what]]
    problems += [f"receipts: {why}" for why in result["receipts"] if why in ("number", "signature", "manifest", "not asked")]
    problems += [f"{what}" for what in ("disputed", "voids", "evidence") if result[what]]
    return problems + [f"a node became {state}" for state in result["changes"] if state != "trusted"]


def print_table(results):
    print("| codec | steps | rows computed | requests (cancelled) | faults | audited | mismatches | disputes | put out | posted | voided |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for r in results:
        wrong = sum(r["audits"][what] for what in ("lied", "withheld", "undecidable"))
        out = sum(count for state, count in r["changes"].items() if state in ("evicted", "quarantined"))
        print(f"| {r['codec']} | {r['steps']} | {r['rows']} | {sum(r['requests'].values())} ({r['requests'].get('cancelled', 0)}) |"
              f" {sum(r['faults'].values())} | {r['audits']['honest']} | {wrong} | {r['disputed']} | {out} | {r['posts']} |"
              f" {len(r['voids'])} |")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("--bin", type=pathlib.Path, default="build/release/bin")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--steps", type=int, default=100_000, help="of the whole chain, all codecs together")
    parser.add_argument("--codecs", default=CODECS)
    parser.add_argument("--every", type=float, default=10, help="seconds between faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    return parser.parse_args()


def main():
    args = parse_arguments()
    codecs, results, failed = args.codecs.split(","), [], False
    machine = {"time": time.strftime("%F %T"), "load": os.getloadavg(), "cores": os.cpu_count(), "model": args.model.name}
    try:
        for codec in codecs:
            try:
                with labs.Lab() as lab:
                    result = Run(lab, args, codec).run(args.steps // len(codecs))
            except labs.Failure as failure:
                failed = True
                print(f"{codec}: FAILED: {failure}", file=sys.stderr, flush=True)
                continue
            result["problems"] = judge(result)
            failed |= bool(result["problems"])
            results.append(result)
            print(json.dumps(result), file=sys.stderr, flush=True)
            if args.json:
                args.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    finally:
        print_table(results)
    sys.exit(failed)


if __name__ == "__main__":
    main()
