#!/usr/bin/env python3
"""clang-tidy, with the short list of .clang-tidy, over every .cc under src/ that the build compiles.

  clang_tidy.py ROOT BUILD

A clean result is remembered in BUILD/clang-tidy under a hash of all that it depends on: the configuration, the tool, the
compiler's command, the file, and our headers that it includes. So a second run is quick.
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

import sources


def dependencies(path, include_folders, seen):
    """Adds path and all headers of ours that it reaches to seen."""
    if path in seen:
        return
    seen.add(path)
    for _, include in sources.includes(path):
        for folder in include_folders:
            if (folder / include).is_file():
                dependencies(folder / include, include_folders, seen)
                break


def fingerprint(path, command, common, include_folders):
    seen = set()
    dependencies(path, include_folders, seen)
    digest = hashlib.sha256(common + command.encode())
    for part in sorted(seen):
        digest.update(str(part).encode() + b"\0" + part.read_bytes())
    return digest.hexdigest()


def check(path, build):
    """The output of clang-tidy on one file, empty if it is clean."""
    result = subprocess.run(["clang-tidy", "--quiet", "-p", str(build), str(path)], capture_output=True, text=True,
                            check=False)
    return (result.stdout + result.stderr) if result.returncode else ""


def main():
    root, build = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    commands = {pathlib.Path(entry["file"]): entry["command"]
                for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))}
    version = subprocess.run(["clang-tidy", "--version"], capture_output=True, check=True).stdout
    common = version + (root / ".clang-tidy").read_bytes()
    cache = build / "clang-tidy"
    cache.mkdir(exist_ok=True)
    todo = {}
    for path in sources.cpp_files(root, ["src"], (".cc",)):
        if path in commands:
            stamp = cache / fingerprint(path, commands[path], common, [root / "src", build / "proto"])
            if not stamp.exists():
                todo[path] = stamp
    problems = {}  # in order, each once: a header's problem shows up in every file that includes it
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (path, stamp), output in zip(todo.items(), pool.map(lambda path: check(path, build), todo)):
            if output:
                for block in re.split(r"(?m)^(?=\S+:\d+:\d+: (?:error|warning):)", output):
                    problems[block.strip()] = path
            else:
                stamp.touch()
    sources.report(list(filter(None, problems)), f"clang-tidy, {len(todo)} files looked at")


if __name__ == "__main__":
    main()
