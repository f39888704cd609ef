#!/usr/bin/env python3
"""config/*.toml name every option of the daemons, and no other; and the daemons read them.

  options.py ROOT BIN
"""
import pathlib
import re
import subprocess
import sys
import tempfile

import sources

PAIRS = (("coordinator.toml", "efedllm-coord", []), ("worker.toml", "efedllm-worker", ["--token", ""]))
NOT_IN_FILES = {"help", "version", "config"}
KEY = re.compile(r"^# ([a-z][a-z-]*) = ", re.MULTILINE)


def find_problems(config, binary, arguments):
    text = config.read_text(encoding="utf-8")
    documented = set(KEY.findall(text))
    usage = subprocess.run([binary, "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^\s+(?:-\w,)?--([a-z-]+)", usage, re.MULTILINE)) - NOT_IN_FILES
    yield from (f"{config.name}: --{name} is missing" for name in sorted(known - documented))
    yield from (f"{config.name}: {binary.name} has no --{name}" for name in sorted(documented - known))
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(KEY.sub(r"\1 = ", text))
        file.flush()
        # A wrong log level is looked at last: who gets there has read and checked all else.
        result = subprocess.run([binary, "--config", file.name, *arguments, "--log-level", "nonsense"],
                                capture_output=True, text=True, check=False, timeout=60)
    if result.returncode != 2 or "nonsense" not in result.stderr:
        yield f"{config.name}: with all options in effect, {binary.name} says: {result.stderr.strip()}"


def main():
    root, binaries = (pathlib.Path(argument) for argument in sys.argv[1:])
    problems = []
    for name, binary, arguments in PAIRS:
        problems += find_problems(root / "config" / name, binaries / binary, arguments)
    sources.report(problems, "options")


if __name__ == "__main__":
    main()
