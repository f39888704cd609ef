#!/usr/bin/env python3
"""Simulates 10,000 seeds or more, after those that failed before.

  run_seeds.py BIN_DIR [--seeds N] [--jobs N]

The first seed is BASE + 1,000,000 x the run's number: EFEDLLM_RUN_SEED, or that of the CI's run, or 0. It is printed; what fails goes
into fault_seeds.txt, and is replayed with `efedllm-ctl simulate --seed N`.
"""
import argparse
import os
import pathlib
import subprocess
import sys

BASE = 20_261_123_000_000
STEPS = "1200"  # events with faults; the seeds of fault_seeds.txt failed within so many


def run_seed():
    for name in ("EFEDLLM_RUN_SEED", "CI_PIPELINE_IID", "GITHUB_RUN_NUMBER"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin_dir", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    ctl = arguments.bin_dir / "efedllm-ctl"

    failed = False
    listed = (pathlib.Path(__file__).parent / "fault_seeds.txt").read_text(encoding="utf-8").splitlines()
    old = [line.split()[0] for line in listed if line.strip() and not line.startswith("#")]
    for seed in old:
        done = subprocess.run([ctl, "simulate", "--seed", seed, "--steps", STEPS, "--quiet"], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            failed = True
            print(f"seed {seed} of fault_seeds.txt FAILED again:\n{done.stdout}", flush=True)

    first = BASE + 1_000_000 * run_seed()
    print(f"run seed {run_seed()}: {arguments.seeds} seeds from {first}, after {len(old)} old ones", flush=True)
    share = -(-arguments.seeds // arguments.jobs)
    ranges = [(at, min(at + share, first + arguments.seeds) - 1) for at in range(first, first + arguments.seeds, share)]
    jobs = [subprocess.Popen([ctl, "simulate", "--seeds", f"{begin}..{end}", "--steps", STEPS]) for begin, end in ranges]
    for job in jobs:
        failed |= job.wait() != 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
