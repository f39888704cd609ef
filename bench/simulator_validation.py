#!/usr/bin/env python3
"""Measures small clusters on this machine and says what the simulator predicts of them, as a Markdown table.

  bench/simulator_validation.py --bin build/release/bin --models models/seedling/seedling-q8_0.gguf [--workers 1,2,4] [--quick]

The simulator is told what one node alone takes for steps of 1 to 256 rows (`efedllm-ctl bench local`, one thread), who held which
layers (`efedllm-ctl status`), and how many cores the machine has, which coordinator and workers share. Nothing is fitted to the
clusters that it predicts. Run it with nothing else on the machine.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "netem"))
import lab as labs  # noqa: E402
from cluster_systems import Ours

PROMPTS, BATCHES = (16, 32, 64, 128, 256), (1, 2, 4, 8)
PROMPT = 256


def ctl_json(args, *words):
    done = subprocess.run([args.bin / "efedllm-ctl", *words, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def calibrate(args, model):
    """[[rows, ms]] of all layers and of the head, of one thread. The head has the share of its weights."""
    config = ctl_json(args, "model", "inspect", "--model", model)["config"]
    layer = (2 * config["d_model"] * config["head_dim"] * (config["heads"] + config["kv_heads"]) +
             3 * config["d_model"] * config["d_ffn"])
    head = config["vocab"] * config["d_model"]
    share = head / (head + layer * config["layers"])
    results = ctl_json(args, "bench", "local", "--model", model, "-t", "1", "-r", "3", "-n", "16" if args.quick else "48",
                       "-b", ",".join(map(str, BATCHES)), "-p", ",".join(map(str, PROMPTS)))
    millis = {"pp": {}, "tg": {}}
    for result in results:
        kind, test = result["test"][:2], result["test"][2:]
        rows = int(test) if kind == "pp" else int(test.split("@")[1]) if "@" in test else 1
        millis[kind][rows] = 1e3 * rows / result["median"]
    heads = [[rows, share * millis["tg"][rows]] for rows in BATCHES]
    layers = [[rows, (1 - share) * millis["tg"][rows]] for rows in BATCHES]
    # A prompt has one row that goes through the head.
    layers += [[rows, max(millis["pp"][rows] - heads[0][1], layers[-1][1])] for rows in PROMPTS]
    return layers, heads


def predict(args, lab, model, times, stages, load):
    layers, heads = times
    node = {"memory": "64GiB", "read_bytes_per_second": 1e10, "int8_ops_per_second": 2e11, "f32_flops_per_second": 1e11, "host": "here"}
    cluster = {"model": {"gguf": str(model)}, "hosts": [{"name": "here", "cores": os.cpu_count()}],
               "coordinator": {**node, "times": heads}, "nodes": [{**node, "count": len(stages), "times": layers}],
               "load": load, "scheduler": {"layout": stages}}
    path = lab.folder / "cluster.json"
    path.write_text(json.dumps(cluster))
    return ctl_json(args, "plan", "--simulate", path)


def measure(system, streams, tokens):
    """Tokens/s of all streams while all decode, and the median gap between tokens."""
    requests = [{"prompt": system.tokens(8), "n": tokens, "extra": {"speculation": False}} for _ in range(streams)]
    results = system.complete(requests)
    begin = max(r["begun"] + r["times"][0] for r in results)
    end = min(r["begun"] + r["times"][-1] for r in results)
    if end <= begin:
        raise labs.Failure("the streams did not overlap: use more --tokens")
    count = sum(begin < r["begun"] + moment <= end for r in results for moment in r["times"])
    gaps = [b - a for r in results for a, b in zip(r["times"], r["times"][1:])]
    return count / (end - begin), statistics.median(gaps)


def line(workers, what, unit, measured, predicted):
    print(f"| {workers} | {what} | {measured:.3g} {unit} | {predicted:.3g} {unit} | {100 * (predicted / measured - 1):+.0f} % |", flush=True)


def validate(args, lab, model):
    times = calibrate(args, model)
    print(f"\n{model.name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; all layers: "
          + ", ".join(f"{rows} rows {millis:.3g} ms" for rows, millis in times[0]))
    print("\n| workers | work | measured | predicted | off by |\n| --- | --- | --- | --- | --- |", flush=True)
    # Some seconds, and no more than a small model's context holds.
    tokens = args.tokens or round(min(max((1000 if args.quick else 4000) / times[0][0][1], 24), 600))
    rounds = 1 if args.quick else 3
    for workers in map(int, args.workers.split(",")):
        with Ours(lab, args, model, workers, label="validation") as system:
            nodes = [node for node in system.ctl("status")["nodes"] if node["last_layer"] > node["first_layer"]]
            stages = [n["last_layer"] - n["first_layer"] for n in sorted(nodes, key=lambda n: n["first_layer"])]
            name = "+".join(map(str, stages))
            config = ctl_json(args, "model", "inspect", "--model", model)["config"]
            if sum(stages) != config["layers"]:
                raise labs.Failure(f"the plan is no single chain: {name} layers; use --coordinator-flags=\"--layout chain\"")
            for streams in (1, 4, 8):
                samples = [measure(system, streams, tokens) for _ in range(rounds)]
                load = {"streams": streams, "prompt_tokens": 8, "output_tokens": tokens}
                predicted = predict(args, lab, model, times, stages, load)
                line(name, f"{streams} streams: all", "tokens/s", statistics.median(s[0] for s in samples), predicted["tokens_per_second"])
                line(name, f"{streams} streams: gap", "ms", 1e3 * statistics.median(s[1] for s in samples),
                     1e3 * predicted["inter_token_seconds"]["median"])
            first = statistics.median(system.first_token(PROMPT) for _ in range(rounds))
            predicted = predict(args, lab, model, times, stages, {"streams": 1, "prompt_tokens": PROMPT, "output_tokens": 2})
            line(name, f"prompt of {PROMPT}", "ms", 1e3 * first, 1e3 * predicted["first_token_seconds"]["median"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("--bin", type=pathlib.Path, default="build/release/bin")
    parser.add_argument("--models", nargs="+", type=pathlib.Path, required=True)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--tokens", type=int, default=0, help="of each stream; 0: as many as take some seconds")
    parser.add_argument("--quick", action="store_true", help="short work, to see that everything runs")
    parser.add_argument("--coordinator-flags", default="--layout chain", help="added to efedllm-coord's")
    args = parser.parse_args()
    args.bin = args.bin.resolve()
    with labs.Lab() as lab:
        for model in args.models:
            validate(args, lab, model.resolve())


if __name__ == "__main__":
    main()
