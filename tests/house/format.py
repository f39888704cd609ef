#!/usr/bin/env python3
"""Every C++ file is as clang-format would write it, with the .clang-format of the root.

  format.py ROOT
"""
import pathlib
import subprocess
import sys

import sources


def main():
    root = pathlib.Path(sys.argv[1])
    files = [str(path.relative_to(root)) for path in sources.cpp_files(root)]
    result = subprocess.run(["clang-format", "--dry-run", "--Werror", "--ferror-limit=3", *files], cwd=root,
                            capture_output=True, text=True, check=False)
    problems = [line for line in result.stderr.splitlines() if "error:" in line]
    if result.returncode and not problems:
        problems = [result.stderr.strip()]
    sources.report(problems, "clang-format")


if __name__ == "__main__":
    main()
