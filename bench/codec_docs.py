#!/usr/bin/env python3
"""Puts the tables and plots of codec reports into docs/codecs.md and docs/plots.

  codec_docs.py seedling=REPORT stories260k=REPORT      folders that `efedllm-ctl codec report --out` wrote

A table stands between `<!-- NAME TABLE -->` and `<!-- end -->`; TABLE: head, levels, together, bound or decoding.
"""
import pathlib
import re
import shutil
import sys

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"


def tables(report):
    """{name: Markdown} of report.md."""
    text = (report / "report.md").read_text()

    def between(begin, end):
        return text.split(begin, 1)[1].split(end, 1)[0].strip()
    return {"head": text.split("\n", 1)[0], "levels": between("The levels, all boundaries together:\n\n", "\n\n"),
            "together": between("The codecs, all boundaries together:\n\n", "\n\n"),
            "bound": between("can cost less.\n\n", "\n\n"), "decoding": between("sequences at once:\n\n", "\n\n")}


def main():
    document = DOCS / "codecs.md"
    text = document.read_text()
    for name, report in (argument.split("=", 1) for argument in sys.argv[1:]):
        report = pathlib.Path(report)
        for table, rows in tables(report).items():
            text, count = re.subn(rf"(<!-- {name} {table} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}\n{rows}\n\n{m[2]}", text, flags=re.S)
            if count != 1:
                sys.exit(f"{document}: {count} places for the table \"{name} {table}\"")
        for plot, suffix in (("together", ""), ("boundaries", "-boundaries"), ("spectra", "-spectra")):
            shutil.copyfile(report / f"{plot}.svg", DOCS / "plots" / f"codecs-{name}{suffix}.svg")
    document.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not all("=" in argument for argument in sys.argv[1:]):
        sys.exit(__doc__)
    main()
