#!/usr/bin/env python3
"""What receipts and audits cost of the throughput: two clusters of three workers, one with them and one without, loaded in turns.

  incentive_overhead.py [--model FILE] [--pairs 4] [--rounds 4] [--seconds 8] [--streams 8] [--bin build/release/bin] [--json FILE]

Which worker has how many layers differs from start to start, so there are several such pairs, one after the other. Before each turn it waits until neither cluster has anything to do: audits that wait for idle time are not the other's to pay. Turns with and without alternate, and who begins does too. Prints tokens/s of each turn, and the ratio of the medians.
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


def metric(cluster, state):
    """Of the metrics, by the start of a sample's name."""
    lines = labs.get(cluster.url + "/metrics", cluster.client_netns).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(state))


def turn(args, cluster, vocabulary):
    """Tokens a second."""
    with cheat_cluster.Load(cluster, args.streams, vocabulary, tokens=args.answer):
        time.sleep(WARM_UP_SECONDS)
        before, began = metric(cluster, "efedllm_generated_tokens_total"), time.monotonic()
        time.sleep(args.seconds)
        return (metric(cluster, "efedllm_generated_tokens_total") - before) / (time.monotonic() - began)


def await_idle(clusters):
    for cluster in clusters:
        labs.wait_for("audits to be done", 600, lambda cluster=cluster: not metric(cluster, "efedllm_audits_waiting"), poll=0.3)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("--bin", type=pathlib.Path, default="build/release/bin")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=4, help="of each pair")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--answer", type=int, default=170, help="tokens of an answer")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--kv-type", default="f32")
    parser.add_argument("--json", type=pathlib.Path)
    return parser.parse_args()


def measure(args, vocabulary, memory, rates):
    """One pair. Adds to rates; audits, and rows replayed."""
    flags = ["--context", args.context, "--kv-type", args.kv_type]

    def cluster(lab, name, more):
        return cheat_cluster.CheatCluster(lab, args.bin, args.model, name, [None] * 3, coordinator_flags=[*flags, *more],
                                          worker_flags=("--memory", memory))
    with labs.Lab() as lab, cluster(lab, "with", []) as paid, cluster(lab, "without", ["--no-receipts"]) as free:
        clusters = {"with": paid, "without": free}
        for one in clusters.values():
            one.await_chain()
        for number in range(args.rounds + 1):
            for name in sorted(clusters, reverse=number % 2 == 1):
                await_idle([paid])
                rate = turn(args, clusters[name], vocabulary)
                if number > 0:  # the first is for newcomers, all of whose chunks are audited
                    rates[name].append(rate)
                print(f"{name}: {rate:.1f} tokens/s", file=sys.stderr, flush=True)
        return metric(paid, "efedllm_audits_total"), metric(paid, "efedllm_audit_replayed_rows_total")


def main():
    args = parse_arguments()
    model = cheat_cluster.inspect(args.bin, args.model)
    memory = cheat_cluster.memory_for_stages(model, 3, args.context, args.kv_type)
    rates, audits = {"with": [], "without": []}, []
    for _ in range(args.pairs):
        audits.append(measure(args, model["config"]["vocab"], memory, rates))
    median = {name: statistics.median(of) for name, of in rates.items()}
    judged, rows = map(sum, zip(*audits))
    report = {"model": args.model.name, "rates": rates, "median": median, "overhead": 1 - median["with"] / median["without"],
              "audits": judged, "replayed_rows": rows}
    print(f"with: {median['with']:.1f} tokens/s, without: {median['without']:.1f}; overhead {100 * report['overhead']:.1f} %;"
          f" {judged:.0f} audits, {rows:.0f} rows replayed")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
