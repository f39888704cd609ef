#!/usr/bin/env python3
"""What receipts and audits cost of the throughput: two clusters of three workers, one with them and one without, loaded in turns.

  incentive_overhead.py [--model FILE] [--rounds 8] [--seconds 8] [--streams 8] [--bin build/release/bin] [--json FILE]

Before each turn it waits until neither cluster has anything to do: audits that wait for idle time are not the other's to pay. Turns with
and without alternate, and who begins does too. Prints tokens/s of each turn, and the ratio of the medians.
"""
import argparse
import json
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "netem"))
import cheat_cluster  # noqa: E402
import lab as labs  # noqa: E402

MODEL = pathlib.Path(__file__).resolve().parents[1] / "models" / "seedling" / "seedling-q8_0.gguf"
WARM_UP_SECONDS = 1  # of each turn


def audits(cluster, state):
    """Of the metrics, by the start of a sample's name."""
    lines = labs.get(cluster.url + "/metrics", cluster.client_netns).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(state))


def turn(args, cluster, vocabulary):
    """Tokens a second."""
    with cheat_cluster.Load(cluster, args.streams, vocabulary, tokens=args.answer) as load:
        time.sleep(WARM_UP_SECONDS)
        before, began = load.tokens, time.monotonic()
        time.sleep(args.seconds)
        return (load.tokens - before) / (time.monotonic() - began)


def await_idle(clusters):
    for cluster in clusters:
        labs.wait_for("audits to be done", 600, lambda cluster=cluster: not audits(cluster, "efedllm_audits_waiting"), poll=0.3)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("--bin", type=pathlib.Path, default="build/release/bin")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--answer", type=int, default=170, help="tokens of an answer")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--kv-type", default="f32")
    parser.add_argument("--json", type=pathlib.Path)
    return parser.parse_args()


def main():
    args = parse_arguments()
    model = cheat_cluster.inspect(args.bin, args.model)
    memory = cheat_cluster.memory_for_stages(model, 3, args.context, args.kv_type)
    flags = ["--context", args.context, "--kv-type", args.kv_type]

    def cluster(lab, name, more):
        return cheat_cluster.CheatCluster(lab, args.bin, args.model, name, [None] * 3, coordinator_flags=[*flags, *more],
                                          worker_flags=("--memory", memory))
    rates = {"with": [], "without": []}
    with labs.Lab() as lab, cluster(lab, "with", []) as paid, cluster(lab, "without", ["--no-receipts"]) as free:
        clusters = {"with": paid, "without": free}
        for one in clusters.values():
            one.await_chain()
        for number in range(args.rounds + 1):
            for name in sorted(clusters, reverse=number % 2 == 1):
                await_idle([paid])
                rate = turn(args, clusters[name], model["config"]["vocab"])
                if number > 0:  # the first is for newcomers, all of whose chunks are audited
                    rates[name].append(rate)
                print(f"{name}: {rate:.0f} tokens/s", file=sys.stderr, flush=True)
        judged, rows = audits(paid, "efedllm_audits_total"), audits(paid, "efedllm_audit_replayed_rows_total")
    median = {name: statistics.median(of) for name, of in rates.items()}
    report = {"model": args.model.name, "rates": rates, "median": median, "overhead": 1 - median["with"] / median["without"],
              "audits": judged, "replayed_rows": rows}
    print(f"with: {median['with']:.0f} tokens/s, without: {median['without']:.0f}; overhead {100 * report['overhead']:.1f} %;"
          f" {judged:.0f} audits, {rows:.0f} rows replayed")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
