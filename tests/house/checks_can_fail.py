#!/usr/bin/env python3
"""Plants one violation of each rule into a little tree, and wants the check to see it; and none before that.

  checks_can_fail.py ROOT
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CLEAN = '#include "absl/types/span.h"\n#include "common/a.h"\n\nnamespace efedllm {\n\nint One() { return 1; }\n\n}  // namespace efedllm\n'
TABLE = "## Folders\n\n| folder | purpose | may include |\n| --- | --- | --- |\n" \
        "| [src/common](../src/common) | x | – |\n| src/high | x | low |\n| src/low | x | – |\n"


def in_namespace(body):
    return CLEAN.replace("int One() { return 1; }", body)


# check -> [(file, its content with the violation, what the check must print)]
PLANTED = {
    "include_directions": [
        ("src/low/low.cc", '#include "high/high.h"\n', "low may not include high"),
        ("src/low/low.cc", '#include "efedllm/stage.pb.h"\n', "low may not include proto"),
        ("src/low/low.cc", '#include "low.h"\n', "write the path from src/"),
        ("src/other/other.cc", "", "src/other: not in the table"),
        ("docs/ARCHITECTURE.md", "# nothing\n", "no table"),
    ],
    "format": [("src/low/low.cc", in_namespace("int One( ) {return 1;}"), "low.cc:6")],
    "links": [("docs/a.md", "See [x](b.md#part) and [y](https://example.org/).\n", "docs/a.md:1: no such file: b.md")],
    "sizes": [
        ("src/low/low.cc", CLEAN + "// line\n" * 500, "508 lines"),
        ("src/low/low.cc", in_namespace("int One() {\n" + "  f(\"{\");\n" * 79 + "}"), "a function of 81 lines"),
        ("src/low/low.h", in_namespace("class A {\n  template <class T>\n  void F(T t) const {\n" + "g({1});\n" * 90 + "}\n};"),
         "a function of 93 lines"),
    ],
    "clang_tidy": [
        ("src/low/low.cc", in_namespace("int* One() { return 0; }"), "modernize-use-nullptr"),
        ("src/common/a.h", "struct A {\n  A(int) {}\n};\n", "google-explicit-constructor"),
    ],
}


def make_tree(root, rules):
    for name, content in {"src/common/a.h": "", "src/high/high.h": "", "src/low/low.h": "", "src/low/low.cc": CLEAN,
                          "tests/low/low_test.cc": "", "docs/ARCHITECTURE.md": TABLE}.items():
        write(root / name, content)
    for name in (".clang-format", ".clang-tidy"):
        shutil.copy(rules / name, root / name)
    command = f"clang++ -std=c++20 -I{root}/src -c {root}/src/low/low.cc"
    write(root / "build/compile_commands.json",
          json.dumps([{"directory": str(root), "file": f"{root}/src/low/low.cc", "command": command}]))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def run(check, root):
    arguments = [root] + ([root / "build"] if check == "clang_tidy" else [])
    result = subprocess.run([sys.executable, "-B", HERE / f"{check}.py", *arguments], capture_output=True, text=True,
                            check=False)
    return result.returncode, result.stdout + result.stderr


def main():
    failed = 0
    for check, cases in PLANTED.items():
        for name, content, wanted in [(None, None, "")] + cases:
            with tempfile.TemporaryDirectory() as folder:
                root = pathlib.Path(folder).resolve()
                make_tree(root, pathlib.Path(sys.argv[1]))
                if name:
                    write(root / name, content)
                code, output = run(check, root)
                right = (code == (1 if name else 0)) and wanted in output
                failed += not right
                print(f"{'ok' if right else 'WRONG'}: {check}, {wanted or 'a clean tree'}")
                if not right:
                    print(output)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
