#!/usr/bin/env python3
"""What becomes of a worker that cheats: real processes, a coordinator and three workers, one of them (or two) a cheat.

  adversaries.py [KIND...] [--bin build/release/bin] [--model FILE] [--json result.json]

Needs efedllm-worker-adversary (cmake -DEFEDLLM_BUILD_ADVERSARIES=ON). For each kind of cheat a cluster of its own serves steady load until
the cheat is put out, or --tokens tokens were computed since it began. Tokens are counted at the cheat itself: what it computed from its
first wrong token on, until it got no more. Money is what the ledger says in the end. Prints a Markdown table. Exit code 1: a cheat was
not put out, was found too late, or gained.
"""
import argparse
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "netem"))
import cheat_cluster  # noqa: E402
import lab as labs  # noqa: E402

MODEL = pathlib.Path(__file__).resolve().parents[1] / "models" / "seedling" / "seedling-q8_0.gguf"
# Who cheats how, by worker. The one that is watched is the first that does.
CASES = {kind: [None, kind, None] for kind in (
    "noise-bit", "noise-0.1", "noise-10", "q4-weights", "skipped-layer", "skipped-all", "stale", "copied", "zeros", "sign-flip", "rare",
    "trusted-first", "trusted-rare", "forged", "invented", "replayed", "twice", "wrong-hash", "over-reported-work", "over-reported-time")}
CASES["colluding"] = ["wrong-hash", "accomplice", None]  # neighbours, in this order
CASES["twins"] = [None, None, None]
# Every 50th chunk: found when the audits' rate lets it, see docs/incentive.md.
RARE = ("rare", "trusted-rare")
NEIGHBOURS = ("colluding",)
# Two keys of one owner on one machine, both honest: nothing to put out, and nothing to gain.
TWINS = "twins"
OWNERS = {TWINS: ["owner-0", "owner-1", "owner-1"]}
PAID_SECONDS = 3  # after an eviction, until what follows from it is in the ledger


def cheater(name):
    """Which worker is watched: the first that cheats."""
    return next((i for i, cheat in enumerate(CASES[name]) if cheat), len(CASES[name]) - 1)


class Case:
    def __init__(self, lab, args, name):
        self.lab, self.args, self.name = lab, args, name
        self.cheats = CASES[name]
        self.number = cheater(name)

    def start(self, attempt=0):
        cluster = cheat_cluster.CheatCluster(self.lab, self.args.bin, self.args.model, f"{self.name}-{attempt}", self.cheats,
                                             owners=OWNERS.get(self.name, ()),
                                             coordinator_flags=["--context", self.args.context, "--kv-type", self.args.kv_type,
                                                                *self.args.coordinator_flags.split()],
                                             worker_flags=("--memory", self.args.memory))
        try:
            nodes = cluster.await_chain()
        except BaseException:
            cluster.__exit__(*sys.exc_info())
            raise
        return cluster, nodes

    def neighbours(self, nodes):
        first, second = (nodes[i] for i, cheat in enumerate(self.cheats) if cheat)
        return first["last_layer"] == second["first_layer"]

    def run(self):
        for attempt in range(20):
            cluster, nodes = self.start(attempt)
            with cluster:
                if self.name not in NEIGHBOURS or self.neighbours(nodes):
                    return self.watch(cluster, nodes)
        raise labs.Failure("they never came to stand side by side")

    def watch(self, cluster, nodes):
        ids = [node["node"] for node in nodes]
        began = time.monotonic()
        limit = self.args.rare_tokens if self.name in RARE else self.args.tokens
        with cheat_cluster.Load(cluster, self.args.streams, self.args.vocabulary, tokens=self.args.answer) as load:
            def out():
                changes = cluster.trust().get(ids[self.number], [])
                return [change for change in changes if change["to"] == "evicted"]

            def over():
                if self.name == TWINS:
                    return load.tokens > limit
                report = cluster.report(self.number)
                return report["first_wrong"] and report["tokens"] - report["tokens_before"] > limit
            evicted = []
            while not evicted and not over() and time.monotonic() - began < self.args.seconds:
                time.sleep(0.05)
                evicted = out()
            seconds = time.monotonic() - began
        time.sleep(PAID_SECONDS)
        cluster.verify()
        return self.result(cluster, nodes, evicted, seconds, load)

    def result(self, cluster, nodes, evicted, seconds, load):
        ids = [node["node"] for node in nodes]
        report, money = cluster.report(self.number), [cluster.statement(node) for node in ids]
        evidence = [one for one in cluster.evidence() if one["node"] == ids[self.number]]
        changes = cluster.trust()
        return {
            "case": self.name, "layers": [[node["first_layer"], node["last_layer"]] for node in nodes],
            "evicted": bool(evicted), "reason": evicted[0]["reason"] if evicted else "", "report": report,
            "evidence": evidence[0] if evidence else None,
            "first": bool(evidence) and evidence[0]["receipt"].get("number") == (report["first_wrong_receipt"] or {}).get("number"),
            "tokens": report["tokens"] - report["tokens_before"] if report["first_wrong"] else 0,
            "money": money, "prices": [cluster.price(node) for node in ids] if self.name == TWINS else [], "states": [[change["to"] for change in changes.get(node, [])] for node in ids],
            "seconds": seconds, "served_tokens": load.tokens, "requests": load.requests, "failures": load.failures}


def net(money):
    """What a node has, and what it may still get."""
    return money["posted_micros"] + money["in_escrow_micros"] - money["penalties_micros"]


def judge(result):
    """What is not as it should be; empty: all is."""
    number = cheater(result["case"])
    problems = []
    if result["case"] == TWINS:
        return judge_twins(result["money"], result["prices"])
    if not result["evicted"]:
        problems.append("not put out")
    if result["case"] not in RARE and result["tokens"] > 2000:
        problems.append("found late")
    own, others = result["money"][number], [m for m, cheat in zip(result["money"], CASES[result["case"]]) if not cheat]
    if net(own) >= own["earned_micros"] > 0 or net(own) >= max(1, *map(net, others)):
        problems.append("it paid")
    for states, cheat in zip(result["states"], CASES[result["case"]]):
        if not cheat and set(states) & {"evicted", "quarantined"}:
            problems.append("an honest node was put out")
    return problems


def judge_twins(money, prices):
    other, *twins = prices
    problems = ["a key earned more for its work"] if max(twins) > other * 1.001 else []
    gifts = [m["posted_micros"] + m["in_escrow_micros"] > m["earned_micros"] for m in money]
    return problems + (["a key was given something"] if any(gifts) else [])


def print_twins(result):
    prices = ", ".join(f"{price:.0f}" for price in result["prices"])
    print(f"\nTwins: micro-credits for 10^12 operations: {prices} (an honest node, and the two keys of one machine).\n")


def print_table(results):
    print("| cheat | put out | why | tokens it computed until then | wrong chunks it claimed | proven in its first wrong receipt |"
          " honest work would have paid it | it has | an honest node has |")
    print("| --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: |")
    for result in results:
        if result["case"] == TWINS:
            continue
        number = cheater(result["case"])
        others = [net(m) for m, cheat in zip(result["money"], CASES[result["case"]]) if not cheat]
        own = result["money"][number]
        why = result["evidence"]["summary"] if result["evidence"] else result["reason"]
        first = ("yes" if result["first"] else "no") if result["evidence"] else "-"
        print(f"| {result['case']} | {'yes' if result['evicted'] else '**no**'} | {why} | {result['tokens']} |"
              f" {result['report'].get('wrong_chunks', 0)} | {first} | {own['earned_micros']} | {net(own)} |"
              f" {sum(others) // len(others)} |")
    for result in results:
        if result["case"] == TWINS:
            print_twins(result)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("cases", nargs="*", default=[*CASES], help="default: all")
    parser.add_argument("--bin", type=pathlib.Path, default="build/release/bin")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--answer", type=int, default=170, help="tokens of an answer")
    parser.add_argument("--tokens", type=int, default=6000, help="since it began to cheat; then it is left alone")
    parser.add_argument("--rare-tokens", type=int, default=200_000, help="the same, of who cheats rarely")
    parser.add_argument("--seconds", type=float, default=1800, help="the same, since the load began")
    parser.add_argument("--coordinator-flags", default="", help="added to efedllm-coord's")
    parser.add_argument("--context", type=int, default=512, help="tokens that a sequence may have")
    parser.add_argument("--kv-type", default="f32")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_intermixed_args()
    if unknown := set(args.cases) - set(CASES):
        parser.error(f"unknown cases {sorted(unknown)}: use {', '.join(CASES)}")
    return args


def main():
    args = parse_arguments()
    if not cheat_cluster.adversary(args.bin):
        sys.exit(f"there is no efedllm-worker-adversary in {args.bin}: cmake -DEFEDLLM_BUILD_ADVERSARIES=ON")
    model = cheat_cluster.inspect(args.bin, args.model)
    args.vocabulary = model["config"]["vocab"]
    args.memory = cheat_cluster.memory_for_stages(model, 3, args.context, args.kv_type)
    results, failed = [], False
    machine = {"time": time.strftime("%F %T"), "load": os.getloadavg(), "cores": os.cpu_count(), "model": args.model.name}
    try:
        for name in args.cases:
            try:
                with labs.Lab() as lab:
                    result = Case(lab, args, name).run()
            except labs.Failure as failure:
                failed = True
                print(f"{name}: FAILED: {failure}", file=sys.stderr, flush=True)
                continue
            result["problems"] = judge(result)
            failed |= bool(result["problems"])
            results.append(result)
            print(f"{name}: {'put out' if result['evicted'] else 'NOT PUT OUT'} after {result['tokens']} tokens, {result['seconds']:.0f} s:"
                  f" {result['reason']} {', '.join(result['problems'])}", file=sys.stderr, flush=True)
            if args.json:
                args.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    finally:
        print_table(results)
    sys.exit(failed)


if __name__ == "__main__":
    main()
