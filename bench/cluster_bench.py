#!/usr/bin/env python3
"""A cluster on this machine beside llama.cpp over its RPC servers: the same work on both, in turns, and what the ratio is.

  cluster_bench.py --bin build/release/bin --models /peers/mnt/q8_0.gguf /peers/mnt/q4_0.gguf --rows prefill,streams --rounds 3 \\
      --llama-bench "chroot /peers llama-bench" --llama-server "chroot /peers llama-server" \\
      --rpc-server "chroot /peers /usr/libexec/ggml-rpc-server" --theirs-dir /mnt --json result.json

Workers and RPC servers have one thread each. Rows: prefill, streams, single, links, busy, mixed, unequal, prefix (default: all).
Without --llama-... only our own side is measured. `links` needs root, /dev/net/tun and ip; `unequal` needs root and the cpu cgroup.
Prints a Markdown table of medians; --json keeps every sample with the machine's load. Run it with nothing else on the machine.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "netem"))
import lab as labs  # noqa: E402
from cluster_systems import Ours, Rpc, RpcServer

LINKS = [("5 ms, 100 Mbit/s", 100, 5000, 1.6), ("20 ms, 50 Mbit/s", 50, 20000, 2.1)]
QUOTAS = (0.2, 0.4, 0.8)  # of a core: 1 : 2 : 4; some is left for the coordinator


class Bench:
    def __init__(self, args, lab):
        self.args, self.lab, self.results = args, lab, []

    def size(self, full, quick):
        return quick if self.args.quick else full

    def alternate(self, contenders):
        """{name: measurement} -> {name: samples}, one of each in turn."""
        samples = {name: [] for name in contenders}
        self.watch = labs.CpuWatch()
        for _ in range(self.args.rounds):
            for name, measure in contenders.items():
                if measure is not None:
                    samples[name].append(measure())
        return samples

    def add(self, row, model, what, ours, base, base_name, reach, most=False):
        """A line of the table: median of ours over median of base, at least (most: at most) reach."""
        ratio = statistics.median(ours) / statistics.median(base) if ours and base else None
        met = None if ratio is None else (ratio <= reach if most else ratio >= reach)
        result = {"row": row, "model": model.name, "what": what, "ours": ours, "against": base_name, "theirs": base,
                  "ratio": ratio, "reach": reach, "at_most": most, "met": met, "load": os.getloadavg()[0],
                  "cpu": self.watch.shares()}
        self.results.append(result)
        print(json.dumps(result), file=sys.stderr, flush=True)

    def theirs(self, model, servers):
        """llama-bench over RPC servers, or None where it is not given."""
        return Rpc(self.lab, self.args, model, servers) if self.args.llama_bench and self.args.rpc_server else None

    def server(self, model, servers, netns=()):
        """llama-server over RPC servers, or None where it is not given."""
        return RpcServer(self.lab, self.args, model, servers, netns) if self.args.llama_server and self.args.rpc_server else None

    def prefill(self, model):
        tokens = self.size(512, 128)
        with Ours(self.lab, self.args, model, 1) as one, Ours(self.lab, self.args, model, 2) as two:
            rpc = self.theirs(model, 2)
            s = self.alternate({"two": lambda: two.prefill(tokens), "one": lambda: one.prefill(tokens),
                                "rpc": rpc and (lambda: rpc.prefill(tokens))})
            name = f"prefill {tokens}, 2 workers, tokens/s"
            self.add("prefill", model, name, s["two"], s["rpc"], "llama.cpp, 2 RPC servers", 7 if "q4_0" in model.name else 3.8)
            self.add("prefill", model, name, s["two"], s["one"], "1 worker", 1.9)
            if rpc:
                rpc.close()

    def streams(self, model):
        tokens = self.size(64, 12)
        with Ours(self.lab, self.args, model, 2) as two, Ours(self.lab, self.args, model, 0, threads=2) as alone:
            server = self.server(model, 2)
            s = self.alternate({"two": lambda: two.streams(8, tokens), "alone": lambda: alone.streams(8, tokens),
                                "server": server and (lambda: server.streams(8, tokens))})
            name = "8 streams, 2 workers, tokens/s"
            self.add("streams", model, name, s["two"], s["server"], "llama-server, 2 RPC servers", 3.5)
            self.add("streams", model, name, s["two"], s["alone"], "one process, 2 threads", 0.9)
            if server:
                server.close()

    def single(self, model):
        tokens = self.size(64, 12)
        for workers in (2, 4):
            with Ours(self.lab, self.args, model, workers) as cluster:
                rpc = self.theirs(model, workers)
                s = self.alternate({"ours": lambda: cluster.streams(1, tokens, speculation=False),
                                    "rpc": rpc and (lambda: rpc.decode(tokens))})
                self.add("single", model, f"1 stream, {workers} workers, tokens/s", s["ours"], s["rpc"],
                         f"llama.cpp, {workers} RPC servers", 1.9 if "q4_0" in model.name else 1.3)
                if rpc:
                    rpc.close()

    def links(self, model):
        if why := labs.can_emulate_links():
            return print(f"links: SKIPPED: {why}", file=sys.stderr)
        tokens = self.size(48, 12)
        with Ours(self.lab, self.args, model, 2) as loopback:
            for name, rate, delay, reach in LINKS:
                self.link(model, loopback, name, rate, delay, reach, tokens)

    def link(self, model, loopback, name, rate, delay, reach, tokens):
        with labs.emulate_links(self.lab, self.args.linkem, 3, rate, delay) as links:
            # The weights travel before the links are slow.
            with Ours(self.lab, self.args, model, 2, netns=links.names, label="links"):
                pass
            server = self.server(model, 2, links.names)
            links.slow_down()
            with Ours(self.lab, self.args, model, 2, netns=links.names, label="links") as slow:
                s = self.alternate({
                    "plain": lambda: slow.streams(1, tokens, speculation=False),
                    "server": server and (lambda: server.streams(1, self.size(24, 6))),
                    "guessed": lambda: slow.repeating(2 * tokens),
                    "eight": lambda: slow.streams(8, tokens),
                    "loopback": lambda: loopback.streams(8, tokens)})
                against = "llama-server, 2 RPC servers"
                self.add("links", model, f"1 stream, {name}, tokens/s", s["plain"], s["server"], against, reach)
                self.add("links", model, f"1 stream that repeats, {name}, speculation, tokens/s", s["guessed"], s["server"], against, 3)
                self.add("links", model, f"8 streams, {name}, tokens/s", s["eight"], s["loopback"], "loopback", 0.85)
                if server:
                    server.close()

    def busy(self, model):
        with Ours(self.lab, self.args, model, 2) as two:
            s = self.alternate({"busy": lambda: two.busy(8, self.size(400, 64))})
            for stage in range(2):
                self.add("busy", model, f"busy fraction of stage {stage + 1} of 2, 8 streams", [busy[stage] for busy in s["busy"]],
                         [1.0], "1", 0.9)

    def mixed(self, model):
        prompt = self.size(4096, 512)
        with Ours(self.lab, self.args, model, 2) as two:
            rate = two.streams(8, self.size(24, 12))
            # Each stream is to last longer than the prompt will take.
            tokens = int(rate / 8 * (4 + 2.5 * two.first_token(prompt))) + 1
            s = self.alternate({"alone": lambda: two.first_token(prompt), "mixed": lambda: two.prompt_among_streams(8, tokens, prompt)})
            self.add("mixed", model, f"inter-token gap p99 while a prompt of {prompt} arrives, s", [m["p99"] for m in s["mixed"]],
                     [m["median"] for m in s["mixed"]], "its median", 3, most=True)
            self.add("mixed", model, f"prompt of {prompt} among 8 streams, s", [m["prompt"] for m in s["mixed"]], s["alone"], "alone", 1.5,
                     most=True)

    def unequal(self, model):
        if not labs.quota_folder():
            return print("unequal: SKIPPED: CPU quotas need root and the cpu cgroup", file=sys.stderr)
        tokens, streams = self.size(40, 16), 16
        groups = [labs.make_quota(self.lab, f"{model.stem}-{i}", quota) for i, quota in enumerate(QUOTAS)]
        alone = []
        for group in groups:
            with Ours(self.lab, self.args, model, 1, cgroups=[group], label=group.name) as one:
                alone.append(self.alternate({"one": lambda: one.streams(streams, tokens)})["one"])
        with Ours(self.lab, self.args, model, 3, cgroups=groups, label="unequal") as three:
            three.streams(streams, tokens)  # plans are made anew by measured times
            planned_streams, predicted = three.predicted()
            s = self.alternate({"three": lambda: three.streams(streams, tokens)})
            sums = [sum(statistics.median(samples) for samples in alone)]
            name = f"{streams} streams, 3 workers of {' : '.join(map(str, QUOTAS))} cores, tokens/s"
            self.add("unequal", model, name, s["three"], sums, "sum of their speeds alone", 0.9)
            error = [max(rate / predicted, predicted / rate) for rate in s["three"]]
            self.add("unequal", model, f"{name}: factor off the plan's {predicted:.1f} for {planned_streams}", error, [1.0], "1", 1.15,
                     most=True)

    def prefix(self, model):
        tokens = self.size(1024, 256)
        with Ours(self.lab, self.args, model, 2) as two:
            s = self.alternate({"pair": lambda: two.same_prefix_twice(tokens)})
            self.add("prefix", model, f"first token of a request with a new prefix of {tokens}, s", [a for a, _ in s["pair"]],
                     [b for _, b in s["pair"]], "the same prefix again", 10)


ROWS = ("prefill", "streams", "single", "links", "busy", "mixed", "unequal", "prefix")


def print_table(results):
    print("| model | work | ours | against | theirs | ratio | reach | met | load | steal % |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in results:
        cells = [r["model"], r["what"], f"{statistics.median(r['ours']):.3g}" if r["ours"] else "-", r["against"],
                 f"{statistics.median(r['theirs']):.3g}" if r["theirs"] else "-", f"{r['ratio']:.2f}" if r["ratio"] else "-",
                 f"{'≤' if r['at_most'] else '≥'} {r['reach']}", {True: "yes", False: "NO", None: "-"}[r["met"]], f"{r['load']:.1f}",
                 r["cpu"]["steal"]]
        print("| " + " | ".join(map(str, cells)) + " |")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("--bin", type=pathlib.Path, default="build/release/bin")
    parser.add_argument("--models", nargs="+", type=pathlib.Path, required=True)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="short work, to see that everything runs")
    parser.add_argument("--llama-bench")
    parser.add_argument("--llama-server")
    parser.add_argument("--rpc-server")
    parser.add_argument("--theirs-dir", help="the models' folder as llama.cpp sees it")
    parser.add_argument("--coordinator-flags", default="", help="added to efedllm-coord's")
    parser.add_argument("--json")
    args = parser.parse_args()
    args.rows = args.rows.split(",")
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"unknown rows {sorted(unknown)}: use {', '.join(ROWS)}")
    args.linkem = args.bin / "linkem"
    return args


def main():
    args = parse_arguments()
    began = {"time": time.strftime("%F %T"), "load": os.getloadavg(), "machine": platform.machine(), "cores": os.cpu_count()}
    print(f"load average {began['load'][0]:.2f} on {began['cores']} cores before the first run", file=sys.stderr)
    results, failed = [], False
    try:
        with labs.Lab() as lab:
            bench = Bench(args, lab)
            results = bench.results
            for model in args.models:
                for row in args.rows:
                    try:
                        getattr(bench, row)(model)
                    except labs.Failure as failure:
                        failed = True
                        print(f"{row}: FAILED: {failure}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    finally:
        print_table(results)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps({"machine": began, "results": results}, indent=1))
    sys.exit(failed)


if __name__ == "__main__":
    main()
