#!/usr/bin/env python3
"""Who may include whom: the table "Folders" of docs/ARCHITECTURE.md, checked against every include under src/.

  include_directions.py ROOT
"""
import pathlib
import re
import sys

import sources

ROW = re.compile(r"^\|\s*\[?`?(?:src/)?(\w+)`?(?:\]\([^)]*\))?\s*\|.*\|\s*([^|]*?)\s*\|\s*$")
FREE = {"common"}  # included by all


def read_table(document):
    """{folder: set of folders that it may include, or None for all}, from the rows below the heading Folders."""
    table, inside = {}, False
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            inside = line.lstrip("# ").startswith("Folders")
        match = ROW.match(line) if inside else None
        if match and match[1] not in ("folder",):
            allowed = match[2]
            table[match[1]] = None if allowed == "all" else set(re.findall(r"\w+", allowed))
    return table


def find_problems(root):
    table = read_table(root / "docs" / "ARCHITECTURE.md")
    if not table:
        yield "docs/ARCHITECTURE.md: no table under the heading Folders"
    for folder in sorted(path.name for path in (root / "src").iterdir() if path.is_dir()):
        if folder not in table:
            yield f"src/{folder}: not in the table of docs/ARCHITECTURE.md"
    for path in sources.cpp_files(root, ["src"]):
        name, folder = path.relative_to(root), path.relative_to(root / "src").parts[0]
        for line, include in sources.includes(path):
            if (path.parent / include).exists():
                yield f"{name}:{line}: {include}: write the path from src/"
            target = include.split("/")[0]
            if target == "efedllm":
                target = "proto"  # the generated headers
            elif target not in table:
                continue  # a library's header
            allowed = table.get(folder, set())
            if target != folder and target not in FREE and allowed is not None and target not in allowed:
                yield f"{name}:{line}: {folder} may not include {target} ({include})"


def main():
    sources.report(list(find_problems(pathlib.Path(sys.argv[1]))), "include directions")


if __name__ == "__main__":
    main()
