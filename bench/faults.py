#!/usr/bin/env python3
"""Breaks a cluster on this machine in the middle of its work, again and again, and says what its clients saw of it.

  faults.py --bin build/release/bin --fault kill --times 50
  faults.py --fault all --json result.json

A coordinator, 3 workers and a standby, real processes; 8 clients stream texts that are known from one process alone. Faults: FAULTS
in tests/netem/faults.py, or `all`, each as often as it is judged unless --times says otherwise. Cuts need root, /dev/net/tun and ip.

pause: of each stream, the longest time between two events with text that ended after the fault, less the median of those before it. A
request that had to be made again counts as one stream. detected: until the coordinator's first warning. healed: after the fault was
undone, until all four workers are in place again.
"""
import argparse
import json
import os
import pathlib
import random
import shlex
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "netem"))
import fault_rounds  # noqa: E402
import faults  # noqa: E402
import lab as labs  # noqa: E402

MODEL = pathlib.Path(__file__).resolve().parents[1] / "models" / "seedling" / "seedling-q8_0.gguf"


def quantile(samples, share):
    """The smallest sample that this share of all does not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)] if ordered else None


def summarise(name, rounds):
    fault = faults.FAULTS[name]
    pauses = [pause for r in rounds for pause in r["pauses"]]
    detected = [r["detected"] for r in rounds if r["detected"] is not None]
    result = {"fault": name, "times": len(rounds), "streams": sum(r["streams"] for r in rounds)}
    for count in ("failed", "changed", "broken", "refused"):
        result[count] = sum(r[count] for r in rounds)
    result |= {"pause_median": statistics.median(pauses) if pauses else None, "pause_p99": quantile(pauses, 0.99),
               "pause_max": max(pauses, default=None), "detected_median": statistics.median(detected) if detected else None,
               "healed_median": statistics.median([r["healed"] for r in rounds]) if rounds else None,
               "reach": {"median": fault.median, "p99": fault.p99}}
    if starts := [r["start_to_serving"] for r in rounds if "start_to_serving" in r]:
        result |= {"start_to_serving_median": statistics.median(starts), "start_to_serving_max": max(starts),
                   "bytes_fetched": sum(r["bytes_fetched"] for r in rounds)}
    result["met"] = bool(pauses) and result["changed"] == 0 and result["failed"] == 0 and (
        max(starts) <= 3 and result["bytes_fetched"] == 0 if starts else
        result["pause_median"] <= fault.median and result["pause_p99"] <= fault.p99)
    return result


def seconds(value):
    return "-" if value is None else f"{value:.2f}"


def print_table(results):
    print("| fault | times | streams | failed | changed | pause, median | p99 | longest | detected | healed | met |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in results:
        cells = [r["fault"], r["times"], r["streams"], r["failed"], r["changed"], seconds(r["pause_median"]), seconds(r["pause_p99"]),
                 seconds(r["pause_max"]), seconds(r["detected_median"]), seconds(r["healed_median"]), "yes" if r["met"] else "NO"]
        print("| " + " | ".join(map(str, cells)) + " |")
    for r in results:
        if "start_to_serving_max" in r:
            print(f"\n{r['fault']}: from start to serving {seconds(r['start_to_serving_median'])} s (median), "
                  f"{seconds(r['start_to_serving_max'])} s (longest); {r['bytes_fetched']} bytes of weights were fetched")


def run_fault(lab, args, name, texts):
    """The rounds of one fault, as far as they came."""
    fault, rounds = faults.FAULTS[name], []
    requests = fault_rounds.bodies(args.tokens)
    try:
        with fault_rounds.cluster_for(lab, args.bin, args.model, fault, workers=args.workers, standby=args.standby,
                                      coordinator_flags=shlex.split(args.coordinator_flags)) as (cluster, shape):
            print(f"{name}: {shape[0]} stages, {shape[1]} standby", file=sys.stderr, flush=True)
            one = fault_rounds.Rounds(cluster, shape, name, requests, texts, f"{args.seed}-{name}")
            for _ in range(args.times or fault.times):
                rounds.append(one.run())
                print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    except labs.Failure as failure:
        print(f"{name}: FAILED: {failure}", file=sys.stderr, flush=True)
        return rounds, str(failure)
    return rounds, ""


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("--bin", type=pathlib.Path, default="build/release/bin")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--fault", default="kill", help=f"one or several of {','.join(faults.FAULTS)}, or all")
    parser.add_argument("--times", type=int, help="rounds of each")
    parser.add_argument("--tokens", type=int, default=900, help="of each stream")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--standby", type=int, default=1, help="of them, that hold no layers")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--coordinator-flags", default="")
    parser.add_argument("--json")
    args = parser.parse_args()
    args.faults = list(faults.FAULTS) if args.fault == "all" else args.fault.split(",")
    if unknown := set(args.faults) - set(faults.FAULTS):
        parser.error(f"unknown faults {sorted(unknown)}")
    return args


def main():
    args = parse_arguments()
    began = {"time": time.strftime("%F %T"), "load": os.getloadavg(), "cores": os.cpu_count(), "seed": args.seed}
    print(f"seed {args.seed}; load average {began['load'][0]:.2f} on {began['cores']} cores", file=sys.stderr)
    results, rounds, problems = [], [], []
    try:
        with labs.Lab() as lab:
            texts = fault_rounds.expected_texts(lab, args.bin, args.model, fault_rounds.bodies(args.tokens))
            for name in args.faults:
                if why := faults.cannot_run(faults.FAULTS[name], args.bin):
                    print(f"{name}: SKIPPED: {why}", file=sys.stderr)
                    continue
                done, problem = run_fault(lab, args, name, texts)
                rounds += done
                results.append(summarise(name, done))
                if problem:
                    problems.append(f"{name}: {problem}")
                    results[-1]["met"] = False
    except KeyboardInterrupt:
        problems.append("interrupted")
    finally:
        print_table(results)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps({"machine": began, "results": results, "rounds": rounds, "problems": problems},
                                                          indent=1))
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems) or not all(r["met"] for r in results))


if __name__ == "__main__":
    main()
