#!/usr/bin/env python3
"""What coding the hops is worth on slow and fast links: real processes, a coordinator and two workers behind emulated links.

  codec_links.py --bin build/release/bin --models models/seedling/seedling-q8_0.gguf q8_0.gguf --rates 2,10,100,1000 --json result.json

Measures the time to the first token of a prompt of 512 tokens, and tokens/s of 8 streams together, for each of --codecs. Clusters
are copies of one, with the same layers, and follow each other. Prompts are held-out text
(codec_texts.py). Needs root, /dev/net/tun and ip. Prints a Markdown table of medians; --json keeps every sample.
"""
import argparse
import copy
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "netem"))
import lab as labs  # noqa: E402
from cluster_systems import Ours

CODECS = ("f16", "int8", "transparent", "balanced", "small", "auto")
WITHOUT_BASES = ("f32", "f16", "int8", "lossless")
TEXTS = pathlib.Path(__file__).with_name("codec_texts.py")
QUIET_SECONDS = 3  # no new basis for so long: they are all there
SETTLED_SECONDS = 4  # without a new plan
AUTO_SETTLED_SECONDS = 13  # links are looked at every ten
CONTEXT = 1024  # tokens: the smallest model has no more
OVERHEAD_BYTES = 64 << 20  # of a worker's memory, as the planner counts (cluster/planner.h)


class Cluster(Ours):
    """Prompts are pieces of a text instead of random tokens."""

    text = None  # tokens

    def tokens(self, count):
        first = random.randrange(max(1, len(self.text) - count))
        # A first token of its own: no prefix that was seen before.
        return [random.randrange(self.vocab // 2, self.vocab), *self.text[first:first + count - 1]]


def read_text(args, model):
    plain = subprocess.run([sys.executable, "-B", TEXTS, "plain", "--documents", "400"], stdout=subprocess.PIPE, check=True).stdout
    done = subprocess.run([args.bin / "efedllm-ctl", "tokenize", "--model", model, "--text-file", "-", "--no-bos", "--json"], input=plain,
                          stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["tokens"]


def worker_memory(args, model):
    """So much that one worker cannot hold all layers and a sequence of the whole context, and two can: every cluster has two stages."""
    done = subprocess.run([args.bin / "efedllm-ctl", "model", "inspect", "--model", model, "--tensors", "--json"],
                          stdout=subprocess.PIPE, check=True)
    report = json.loads(done.stdout)
    layers = sum(tensor["bytes"] for tensor in report["tensors"] if tensor["name"].startswith("blk."))
    return int(OVERHEAD_BYTES + 0.95 * (layers + CONTEXT * report["kv_bytes_per_token"]["f32"]))


def await_settled(cluster, seconds):
    """The plan stays, so that no weights travel while it is measured."""
    epoch, since = None, 0

    def settled():
        nonlocal epoch, since
        status = cluster.ctl("status")
        if status is None:
            return False
        if status["epoch"] != epoch:
            epoch, since = status["epoch"], time.monotonic()
        return time.monotonic() - since > seconds
    labs.wait_for("a plan that stays", 300, settled, poll=0.5)


class Bench:
    def __init__(self, args, lab):
        self.args, self.lab, self.results = args, lab, []

    def start(self, model, codec, netns=()):
        args = copy.copy(self.args)
        args.coordinator_flags = f"--codec {codec} --context {CONTEXT} {self.args.coordinator_flags}"
        return Cluster(self.lab, args, model, 2, label=f"codec-{codec}", netns=netns,
                       worker_flags=("--memory", worker_memory(args, model)))

    def prepare(self, model):
        """One cluster fetches weights and bases and settles on a plan before links are slow. All others are copies of it, node keys and
        stored plan included, so that they cut the model alike."""
        first = min(self.args.codecs, key=lambda codec: codec in WITHOUT_BASES)
        if self.args.bases:
            state = self.lab.folder / f"{model.stem}-codec-{first}-2-coordinator"
            state.mkdir(mode=0o700)
            shutil.copytree(self.args.bases, state / "bases")
        with self.start(model, first) as cluster:
            if first not in WITHOUT_BASES:
                self.await_bases(cluster.state / "bases")
            await_settled(cluster, AUTO_SETTLED_SECONDS)
        for codec in self.args.codecs:
            for role in ("coordinator", "worker-0", "worker-1") if codec != first else ():
                source, copied = (self.lab.folder / f"{model.stem}-codec-{of}-2-{role}" for of in (first, codec))
                # Weights and bases are written once; what else is there changes in place.
                shutil.copytree(source, copied, ignore=shutil.ignore_patterns("weights", "bases"))
                for folder in ("weights", "bases"):
                    if (source / folder).exists():
                        shutil.copytree(source / folder, copied / folder, copy_function=os.link)

    def await_bases(self, folder):
        seen, since = 0, time.monotonic()

        def all_there():
            nonlocal seen, since
            count = len(list(folder.glob("*.basis")))
            if count != seen:
                seen, since = count, time.monotonic()
            return seen > 0 and time.monotonic() - since > QUIET_SECONDS
        labs.wait_for("the calibration", self.args.calibration_seconds, all_there, poll=0.2)

    def link(self, model, rate):
        """One cluster after the other: together they would fill a slow link with their heartbeats."""
        with labs.emulate_links(self.lab, self.args.linkem, 3, rate, self.args.delay) as links:
            links.slow_down()
            samples, ends = {}, {}
            for codec in self.args.codecs:
                with self.start(model, codec, links.names) as cluster:
                    await_settled(cluster, AUTO_SETTLED_SECONDS if codec == "auto" else SETTLED_SECONDS)
                    watch = labs.CpuWatch()
                    samples[codec] = {"first_token": [cluster.first_token(self.args.prompt) for _ in range(self.args.rounds)],
                                      "streams": [self.streams(cluster) for _ in range(self.args.rounds)]}
                    ends[codec] = cluster.ctl("status"), watch.shares()
            for codec in self.args.codecs:
                self.add(model, rate, codec, samples, *ends[codec])

    def streams(self, cluster):
        """Asked again where the machine was so busy that one of the streams ended before another began."""
        for attempt in range(3):
            try:
                return cluster.streams(8, self.args.tokens, speculation=False)
            except labs.Failure:
                if attempt == 2:
                    raise

    def add(self, model, rate, codec, samples, status, cpu):
        first, streams = (
            {other: statistics.median(of[what]) for other, of in samples.items()} for what in ("first_token", "streams"))
        fixed = [other for other in samples if other != "auto"]
        layers = sorted((node["first_layer"], node["last_layer"]) for node in status["nodes"])
        result = {"model": model.name, "layers": [last - first for first, last in layers], "mbit": rate, "codec": codec, **samples[codec],
                  "median_first_token": first[codec],
                  "median_streams": streams[codec],
                  "best_first_token": min(first[other] for other in fixed), "best_streams": max(streams[other] for other in fixed),
                  "f16_first_token": first.get("f16"), "f16_streams": streams.get("f16"), "load": os.getloadavg()[0],
                  "cpu": cpu, "status": status}
        self.results.append(result)
        print(f"{model.name} {rate} Mbit {codec}: first token {first[codec]:.3f} s, 8 streams {streams[codec]:.1f} tokens/s",
              file=sys.stderr, flush=True)


def print_table(results):
    print("| model | link, Mbit/s | codec | layers | first token of a prompt, s | f16 / it | 8 streams, tokens/s | it / f16 |"
          " first token: best fixed / it | streams: it / best fixed |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for r in results:
        def ratio(above, below):
            return f"{above / below:.2f}" if above and below else "-"
        print(f"| {r['model']} | {r['mbit']} | {r['codec']} | {' + '.join(map(str, r['layers']))} | {r['median_first_token']:.3f} |"
              f" {ratio(r['f16_first_token'], r['median_first_token'])} | {r['median_streams']:.1f} |"
              f" {ratio(r['median_streams'], r['f16_streams'])} | {ratio(r['best_first_token'], r['median_first_token'])} |"
              f" {ratio(r['median_streams'], r['best_streams'])} |")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("--bin", type=pathlib.Path, default="build/release/bin")
    parser.add_argument("--models", nargs="+", type=pathlib.Path, required=True)
    parser.add_argument("--rates", default="2,10,100,1000", help="Mbit/s")
    parser.add_argument("--delay", type=int, default=500, help="one way, microseconds")
    parser.add_argument("--codecs", default=",".join(CODECS))
    parser.add_argument("--prompt", type=int, default=512, help="tokens")
    parser.add_argument("--tokens", type=int, default=192, help="that each stream generates")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calibration-seconds", type=float, default=1200)
    parser.add_argument("--bases", type=pathlib.Path, help="a folder of bases that `codec calibrate` made of these models")
    parser.add_argument("--coordinator-flags", default="--layout chain", help="added to efedllm-coord's")
    parser.add_argument("--json")
    args = parser.parse_args()
    args.rates = [float(rate) if "." in rate else int(rate) for rate in args.rates.split(",")]
    args.codecs = args.codecs.split(",")
    args.linkem = args.bin / "linkem"
    return args


def main():
    args = parse_arguments()
    if why := labs.can_emulate_links():
        sys.exit(f"SKIPPED: {why}")
    began = {"time": time.strftime("%F %T"), "load": os.getloadavg(), "cores": os.cpu_count(), "delay_micros": args.delay}
    results, failed = [], False
    try:
        with labs.Lab() as lab:
            bench = Bench(args, lab)
            results = bench.results
            for model in args.models:
                Cluster.text = read_text(args, model)
                bench.prepare(model)
                for rate in args.rates:
                    try:
                        bench.link(model, rate)
                    except labs.Failure as failure:
                        failed = True
                        print(f"{model.name}, {rate} Mbit: FAILED: {failure}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    finally:
        print_table(results)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps({"machine": began, "results": results}, indent=1))
    sys.exit(failed)


if __name__ == "__main__":
    main()
