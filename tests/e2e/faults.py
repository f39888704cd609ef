#!/usr/bin/env python3
"""Daemons are killed, stopped, slowed down, cut off, spoilt and drained while eight clients stream: none loses its stream, and every
text is what one process alone answers. bench/faults.py does the same more often and measures.

  tests/e2e/faults.py BIN_DIR [--rounds 1] [FAULT...]

BIN_DIR has efedllm-coord, efedllm-worker, efedllm-ctl and linkem. Faults: see tests/netem/faults.py. 77: all were skipped.
"""
import argparse
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "netem"))
import fault_rounds  # noqa: E402
import faults  # noqa: E402
import lab as labs  # noqa: E402

MODEL = pathlib.Path(__file__).resolve().parents[2] / "models" / "seedling" / "seedling-q8_0.gguf"
TOKENS = 500


def by_cluster(names):
    """Faults that one cluster can serve, together."""
    groups = {}
    for name in names:
        fault = faults.FAULTS[name]
        groups.setdefault((fault.links, fault.disks, fault.clocks), []).append(name)
    return groups.values()


def check(result):
    problems = {key: result[key] for key in ("failed", "changed") if result[key]}
    if problems and not (result["fault"] == "two" and not result["changed"] and result["refused"]):
        raise labs.Failure(f"{result['what']}: {problems}: {result['errors']}")
    print(f"{result['fault']}: {result['what']}: {result['streams']} streams, none failed or changed, epochs: {result['epochs']}",
          flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("faults", nargs="*", default=[*faults.FAULTS])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_intermixed_args()
    if unknown := set(args.faults) - set(faults.FAULTS):
        parser.error(f"unknown faults {sorted(unknown)}")
    print(f"seed {args.seed}", flush=True)
    names = []
    for name in args.faults:
        if why := faults.cannot_run(faults.FAULTS[name], args.binaries):
            print(f"{name}: SKIPPED: {why}")
        else:
            names.append(name)
    if not names:
        sys.exit(77)
    requests = fault_rounds.bodies(TOKENS)
    with labs.Lab() as lab:
        texts = fault_rounds.expected_texts(lab, args.binaries, MODEL, requests)
        for group in by_cluster(names):
            with fault_rounds.cluster_for(lab, args.binaries, MODEL, faults.FAULTS[group[0]]) as (cluster, shape):
                for name in group:
                    rounds = fault_rounds.Rounds(cluster, shape, name, requests, texts, f"{args.seed}-{name}")
                    for _ in range(args.rounds):
                        check(rounds.run())
    print("no stream was lost, no text changed")


if __name__ == "__main__":
    main()
