#!/usr/bin/env python3
"""efedllm-ctl's tools that need no cluster, on the bundled model: what they print, and how they end.

  tests/e2e/ctl_tools.py EFEDLLM_CTL
"""
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

SEEDLING = pathlib.Path(__file__).resolve().parents[2] / "models" / "seedling"
Q8_0 = str(SEEDLING / "seedling-q8_0.gguf")
F16 = str(SEEDLING / "seedling-f16.gguf")


def run(*arguments, exit_code=0):
    done = subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == exit_code, (arguments, done.returncode, done.stderr)
    return done


def answer(*arguments):
    """The one JSON document on stdout."""
    return json.loads(run(*arguments, "--json").stdout)


def bench():
    results = answer("bench", "local", "--model", Q8_0, "-p", "64,128", "-n", "8", "-b", "1,8", "-t", "1,2", "-r", "2",
                     "-d", "0,32")
    names = [(result["test"], result["threads"]) for result in results]
    tests = ["pp64", "pp128", "tg8", "tg8@8"]
    assert names == [(test + depth, threads) for threads in (1, 2) for depth in ("", "@d32") for test in tests], names
    for result in results:
        assert set(result) == {"test", "threads", "median", "samples"}
        assert len(result["samples"]) == 2 and min(result["samples"]) > 0
        assert math.isclose(result["median"], sum(result["samples"]) / 2)
    table = run("bench", "local", "--model", Q8_0, "-p", "0", "-n", "4", "-t", "1", "-r", "1").stdout
    assert "llama" in table and "tg4" in table and "pp" not in table, table
    run("bench", "local", "--model", Q8_0, "-p", "0", "-n", "0", exit_code=1)
    run("bench", "local", "--model", Q8_0, "-t", "0", exit_code=2)


def logits():
    one = answer("eval", "logits", "--model", Q8_0, "--tokens", "1,259,512", "--threads", "1", "--kernels", "scalar")
    assert one == answer("eval", "logits", "--model", Q8_0, "--tokens", "1,259,512", "--chunk", "1")
    assert len(one["logits"]) == 1024 and len(one["argmax"]) == 3
    run("eval", "logits", "--model", Q8_0, "--tokens", "1", "--kv-type", "f64", exit_code=1)


def perplexity_and_kl(folder):
    text = folder / "text"
    text.write_text("Once upon a time there was a shy owl named Milo. 27 + 48 = 75.\n" * 40)
    saved = folder / "logits"
    exact = answer("eval", "perplexity", "--model", F16, "--text", str(text), "--save-logits", str(saved))
    assert exact["windows"] == 2 and 1 < exact["perplexity"] < 100, exact
    by_file = answer("eval", "kl", "--model", Q8_0, "--text", str(text), "--reference", str(saved))
    by_model = answer("eval", "kl", "--model", Q8_0, "--text", str(text), "--reference", F16)
    assert by_file == by_model
    assert 0 < by_file["mean_kl"] < 0.01 and by_file["max_kl"] >= by_file["mean_kl"]
    assert by_file["reference_perplexity"] == exact["perplexity"]
    assert by_file["top1_agreement"] > 0.95
    same = answer("eval", "kl", "--model", F16, "--text", str(text), "--reference", str(saved))
    assert same["max_kl"] == 0 and same["perplexity"] == exact["perplexity"]

    other = folder / "other"
    other.write_text("Another text.")
    assert "another text" in run("eval", "kl", "--model", F16, "--text", str(other), "--reference", str(saved),
                                 exit_code=1).stderr
    saved.write_bytes(saved.read_bytes()[:-1])
    run("eval", "kl", "--model", F16, "--text", str(text), "--reference", str(saved), exit_code=1)
    other.write_text("")
    run("eval", "perplexity", "--model", F16, "--text", str(other), exit_code=1)


def codecs(folder):
    text = folder / "held-out"
    text.write_text("Once upon a time there was a shy owl named Milo. 27 + 48 = 75.\nThe capital of Peru is Lima.\n" * 30)
    state = ("--state-dir", str(folder / "state"))

    def coded(codec, *more):
        return answer("eval", "kl", "--model", F16, "--text", str(text), "--stages", "4", "--codec", codec, *state, *more)
    lossless, f16, int4, transparent = (coded(codec) for codec in ("lossless", "f16", "int4", "transparent"))
    assert lossless["max_kl"] == 0 and lossless["perplexity"] == lossless["reference_perplexity"], lossless
    assert 0 < f16["mean_kl"] < 1e-5 and f16["f16_bytes_per_token_hop"] == 512 and 512 < f16["bytes_per_token_hop"] < 514, f16
    assert transparent["mean_kl"] < int4["mean_kl"] and transparent["bytes_per_token_hop"] < 0.4 * 512, transparent
    assert [boundary["after_layers"] for boundary in transparent["boundaries"]] == [2, 4, 6], transparent
    decoded = coded("f16", "--batch", "8")
    assert decoded["payload_bytes_per_token_hop"] == 512 and decoded["bytes_per_token_hop"] > f16["bytes_per_token_hop"], decoded

    out = folder / "report"
    report = answer("codec", "report", "--model", F16, "--text", str(text), "--stages", "2", "--tokens", "500", "--out", str(out),
                    *state)
    assert [level["codec"] for level in report["levels"]] == ["lossless", "transparent", "balanced", "small"], report["levels"]
    assert report["boundaries"][0]["after_layers"] == 4 and len(report["boundaries"][0]["spectrum"]) == 256
    for name in ("report.html", "report.md", "report.json", "together.svg", "boundaries.svg", "spectra.svg"):
        assert (out / name).stat().st_size > 500, name

    kl = ("eval", "kl", "--model", F16, "--text", str(text))
    assert "either --reference" in run(*kl, exit_code=1).stderr
    assert "either --reference" in run(*kl, "--reference", Q8_0, "--codec", "f16", exit_code=1).stderr
    assert "is unknown" in run(*kl, "--codec", "best", exit_code=1).stderr
    assert "8 layers" in run(*kl, "--codec", "f16", "--stages", "9", exit_code=1).stderr
    assert "one stage" in run(*kl, "--codec", "f16", "--stages", "1", exit_code=1).stderr


def tasks():
    scores = answer("eval", "tasks", "--model", Q8_0)
    assert scores["total"] == 330 and scores["accuracy"] >= 0.98, scores
    assert scores["correct"] == sum(task["correct"] for task in scores["by_task"].values())
    assert scores["by_task"]["add"] == {"correct": 40, "total": 40, "accuracy": 1.0}


def inspect(folder):
    report = answer("model", "inspect", "--model", Q8_0)
    assert report["supported"] and report["quantization"] == "Q8_0" and report["config"]["layers"] == 8
    assert report["kv_bytes_per_token"] == {"f32": 8192, "f16": 4096, "q8_0": 2176}
    assert "chatml" in run("model", "inspect", "--model", Q8_0, "--tensors").stdout
    assert "im_start" in run("model", "inspect", "--model", Q8_0, "--template").stdout

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    mamba = folder / "mamba.gguf"
    mamba.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.architecture") + struct.pack("<I", 8) +
                      text("mamba"))
    report = answer("model", "inspect", "--model", str(mamba))
    assert not report["supported"] and "mamba" in report["problems"][0], report
    assert "mamba" in run("model", "inspect", "--model", str(mamba)).stdout
    assert "mamba" in run("eval", "logits", "--model", str(mamba), "--tokens", "1", exit_code=1).stderr
    mamba.write_bytes(b"no model")
    run("model", "inspect", "--model", str(mamba), exit_code=1)


def simulate(folder):
    example = str(SEEDLING.parents[1] / "config" / "cluster-example.json")
    plot = folder / "plot.svg"
    result = answer("plan", "--simulate", example, "--plot", str(plot))
    assert result == answer("plan", "--simulate", example)
    assert result["requests"] == 64 and result["tokens_per_second"] > 0 and plot.read_text().startswith("<svg")
    assert {"first_token_seconds", "inter_token_seconds", "bytes_per_token", "stages", "links"} <= set(result)
    assert "tokens/s" in run("plan", "--simulate", example).stdout
    own = folder / "cluster.json"
    cluster = {"model": {"gguf": Q8_0}, "coordinator": {"preset": "server-2023"}, "nodes": [{"preset": "office-2020", "count": 2}],
               "load": {"streams": 2, "prompt_tokens": 9, "output_tokens": 20}, "scheduler": {"layout": [3, 5]}}
    own.write_text(json.dumps(cluster))
    result = answer("plan", "--simulate", str(own))
    assert [stage["last_layer"] for stage in result["stages"]] == [3, 8] and result["output_tokens"] == 40, result
    own.write_text(json.dumps(cluster | {"speed": 1}))
    assert "speed: is not known here" in run("plan", "--simulate", str(own), exit_code=1).stderr
    run("plan", "--simulate", str(folder / "none.json"), exit_code=1)


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        bench()
        logits()
        perplexity_and_kl(folder)
        codecs(folder)
        tasks()
        inspect(folder)
        simulate(folder)
    print("all tools work")


if __name__ == "__main__":
    main()
