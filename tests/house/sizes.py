#!/usr/bin/env python3
"""Files of at most 500 lines and functions of at most 80. The aim is 400 and 70; this is where it ends.

  sizes.py ROOT
"""
import pathlib
import re
import sys

import sources

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80

# Comments, raw strings, strings, characters and preprocessor lines: where a brace is no brace.
NO_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\''
    r'|^[ \t]*#(?:[^\n\\]|\\.)*', re.DOTALL | re.MULTILINE)
SCOPE = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")


def blank(match):
    return "".join("\n" if c == "\n" else " " for c in match[0])


def functions(text):
    """Yields (first line, lines, head) of every outermost block that is no namespace, class or initializer."""
    code = NO_CODE.sub(blank, text)
    scopes, head_start, opened = [], 0, None
    for match in re.finditer(r"[{};]", code):
        at, inside = match.start(), opened is not None
        if match[0] == "{":
            head = re.sub(r"template\s*<[^{}]*?>\s*(?=\w)", "", code[head_start:at]).strip()
            transparent = not inside and SCOPE.search(head) and not head.endswith(")")
            scopes.append(transparent)
            if not inside and not transparent:
                opened = (len(scopes), head_start + len(code[head_start:at]) - len(code[head_start:at].lstrip()), head)
        elif match[0] == "}" and scopes:
            if inside and len(scopes) == opened[0]:
                first, last = code.count("\n", 0, opened[1]) + 1, code.count("\n", 0, at) + 1
                if "(" in opened[2] and not opened[2].endswith("="):
                    yield first, last - first + 1, " ".join(opened[2].split())
                opened = None
            scopes.pop()
        if opened is None:
            head_start = at + 1


def find_problems(root):
    for path in sources.cpp_files(root):
        name, text = path.relative_to(root), path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > MAX_FILE_LINES:
            yield f"{name}: {lines} lines; at most {MAX_FILE_LINES}"
        for first, length, head in functions(text):
            if length > MAX_FUNCTION_LINES:
                yield f"{name}:{first}: a function of {length} lines; at most {MAX_FUNCTION_LINES}: {head[:80]}"


def main():
    sources.report(list(find_problems(pathlib.Path(sys.argv[1]))), "sizes")


if __name__ == "__main__":
    main()
