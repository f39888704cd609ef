#!/usr/bin/env python3
"""Every relative link of our documents leads to a file that is there.

  links.py ROOT
"""
import pathlib
import re
import sys

import sources

LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")


def documents(root):
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md"), *(root / "models").rglob("*.md")])


def find_problems(root):
    for path in documents(root):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for target in LINK.findall(line):
                if "://" not in target and not (path.parent / target).exists():
                    yield f"{path.relative_to(root)}:{number}: no such file: {target}"


def main():
    sources.report(list(find_problems(pathlib.Path(sys.argv[1]))), "links")


if __name__ == "__main__":
    main()
