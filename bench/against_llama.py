#!/usr/bin/env python3
"""Speed beside llama.cpp on the same GGUF files: alternating runs, medians, ratios, and the share of the machine's read bandwidth.

  against_llama.py --ours build/release/bin/efedllm-ctl --stream build/release/bin/stream_bench \\
      --theirs "chroot /peers llama-bench" --theirs-batched "chroot /peers llama-batched-bench" \\
      --theirs-dir /mnt --models /peers/mnt/q8_0.gguf /peers/mnt/q4_0.gguf --tests pp512,tg64,tg64@8 --threads 1,2 --rounds 3

Tests are pp512 (a prompt), tg64 (one sequence), tg64@8 (8 sequences at once, all tokens counted) and tg32@d8192 (after 8192 tokens
of context). --busy keeps a `nice -n 19` loop on every core meanwhile. What --theirs sees as a model is --theirs-dir and the file's
name. Prints a Markdown table; --json FILE keeps the samples. Run it with nothing else on the machine.
"""
import argparse
import json
import os
import re
import shlex
import statistics
import struct
import subprocess
import sys

TEST = re.compile(r"(pp|tg)(\d+)(?:@d(\d+)|@(\d+))?")
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def read(file, form):
    return struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))[0]


def skip_value(file, kind):
    if kind == 8:
        file.seek(read(file, "Q"), 1)
    elif kind == 9:
        element, count = read(file, "I"), read(file, "Q")
        if element in SCALAR_BYTES:
            file.seek(SCALAR_BYTES[element] * count, 1)
        else:
            for _ in range(count):
                skip_value(file, element)
    else:
        file.seek(SCALAR_BYTES[kind], 1)


def weight_bytes_and_ops(path):
    """What a token reads and multiplies: every tensor but an embedding that the head doesn't share."""
    with open(path, "rb") as file:
        file.seek(8)
        tensors, pairs = read(file, "Q"), read(file, "Q")
        for _ in range(pairs):
            file.seek(read(file, "Q"), 1)
            skip_value(file, read(file, "I"))
        found = []
        for _ in range(tensors):
            name = file.read(read(file, "Q")).decode()
            shape = [read(file, "Q") for _ in range(read(file, "I"))]
            read(file, "I")
            found.append((read(file, "Q"), name, shape))
        start = (file.tell() + 31) // 32 * 32
    found.sort()
    ends = [offset for offset, _, _ in found[1:]] + [os.path.getsize(path) - start]
    names = {name for _, name, _ in found}
    bytes_read = operations = 0
    for (offset, name, shape), end in zip(found, ends):
        if name == "token_embd.weight" and "output.weight" in names:
            continue
        bytes_read += end - offset
        if len(shape) == 2:
            operations += 2 * shape[0] * shape[1]
    return bytes_read, operations


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def parse(test):
    kind, tokens, depth, batch = TEST.fullmatch(test).groups()
    return kind, tokens, depth, batch


def ours(args, path, test, threads):
    kind, tokens, depth, batch = parse(test)
    command = shlex.split(args.ours) + ["bench", "local", "--json", "--model", path, "-t", str(threads), "-r", "1"]
    command += ["--kernels", args.kernels]
    command += ["-p", tokens, "-n", "0"] if kind == "pp" else ["-p", "0", "-n", tokens]
    command += ["-d", depth] if depth else []
    command += ["-b", batch] if batch else []
    return json.loads(run(command))[0]["median"]


def theirs(args, path, test, threads):
    kind, tokens, depth, batch = parse(test)
    model = os.path.join(args.theirs_dir, os.path.basename(path)) if args.theirs_dir else path
    if batch:
        command = shlex.split(args.theirs_batched) + ["-m", model, "-t", str(threads), "-tb", str(threads), "-c", "4096", "-npp", "16",
                                                      "-ntg", tokens, "-npl", batch, "--output-format", "jsonl"]
        return [json.loads(line)["speed_tg"] for line in run(command).splitlines() if line.startswith("{")][-1]
    command = shlex.split(args.theirs) + ["-m", model, "-t", str(threads), "-r", "1", "-o", "jsonl"]
    command += ["-p", tokens, "-n", "0"] if kind == "pp" else ["-p", "0", "-n", tokens]
    command += ["-d", depth] if depth else []
    return json.loads([line for line in run(command).splitlines() if line.startswith("{")][-1])["samples_ts"][0]


def start_busy_loops():
    return [subprocess.Popen(["nice", "-n", "19", "sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count())]


def table(rows, roofs, facts):
    print("| model | test | threads | ours | llama.cpp | ratio | GB/token | roof GB/s | % of roof | GOP/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        bytes_read, operations = facts[row["model"]]
        _, _, _, batch = parse(row["test"])
        mine = statistics.median(row["ours"])
        other = statistics.median(row["theirs"]) if row["theirs"] else None
        roof = roofs.get(row["threads"])
        cells = [os.path.basename(row["model"]), row["test"], row["threads"], f"{mine:.2f}", f"{other:.2f}" if other else "-",
                 f"{mine / other:.2f}" if other else "-"]
        if row["test"].startswith("tg") and roof:
            cells += [f"{bytes_read / 1e9:.3f}", f"{roof / 1e9:.1f}", f"{100 * mine / int(batch or 1) * bytes_read / roof:.0f}"]
        else:
            cells += ["-", "-", "-"]
        print("| " + " | ".join(map(str, cells + [f"{mine * operations / 1e9:.0f}"])) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("--ours", default="build/release/bin/efedllm-ctl")
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--theirs", help="llama-bench; without it only ours is measured")
    parser.add_argument("--theirs-batched", help="llama-batched-bench, for tests like tg64@8")
    parser.add_argument("--theirs-dir", help="the models' folder as --theirs sees it")
    parser.add_argument("--stream", help="stream_bench, for the roof")
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--tests", default="pp512,tg64,tg64@8")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    tests = args.tests.split(",")
    if bad := [test for test in tests if not TEST.fullmatch(test)]:
        parser.error(f"unknown tests {bad}: use pp512, tg64, tg64@8 or tg32@d8192")
    threads = [int(n) for n in args.threads.split(",")]
    roofs = {n: json.loads(run([args.stream, str(n)]))["read_bytes_per_second"] for n in threads} if args.stream else {}
    facts = {path: weight_bytes_and_ops(path) for path in args.models}
    loops = start_busy_loops() if args.busy else []
    rows = []
    try:
        for path in args.models:
            for test in tests:
                against = args.theirs_batched if parse(test)[3] else args.theirs
                for n in threads:
                    row = {"model": path, "test": test, "threads": n, "ours": [], "theirs": []}
                    for _ in range(args.rounds):
                        row["ours"].append(ours(args, path, test, n))
                        if against:
                            row["theirs"].append(theirs(args, path, test, n))
                    print(json.dumps(row), file=sys.stderr, flush=True)
                    rows.append(row)
    finally:
        for loop in loops:
            loop.kill()
    table(rows, roofs, facts)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file)


if __name__ == "__main__":
    main()
