"""What the house tests look at: the C++ files of the project, and how a test reports."""
import pathlib
import re
import sys

FOLDERS = ("src", "tests", "bench")


def cpp_files(root, folders=FOLDERS, suffixes=(".h", ".cc")):
    """Paths of our own C++ files under root, sorted."""
    return sorted(path for folder in folders for path in (pathlib.Path(root) / folder).rglob("*")
                  if path.suffix in suffixes and path.is_file())


def includes(path):
    """Yields (line number, name) of every #include "name"."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
        if match:
            yield number, match[1]


def report(problems, what):
    """Prints the problems and exits: 1 if there are any."""
    for problem in problems:
        print(problem)
    print(f"{what}: {len(problems)} problems" if problems else f"{what}: fine")
    sys.exit(1 if problems else 0)
