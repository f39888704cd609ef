#!/usr/bin/env python3
"""Draws the plots of docs/scaling.md from the simulator, and writes what they show as docs/plots/scaling.json.

  bench/scaling_report.py build/release/bin/efedllm-ctl            about two minutes
  bench/scaling_report.py build/release/bin/efedllm-ctl streams    only that plot
"""
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import tempfile

from svg_plot import Panel, draw

PLOTS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "plots"
# Numbers that divide the layers, from the least whose memory suffices.
STAGES = {"8b": (1, 2, 4, 8, 16, 32), "70b": (2, 4, 5, 8, 10, 16, 20, 40, 80), "405b": (14, 18, 21, 42, 63, 126)}
NETWORKS = {
    "LAN": {"network": {"preset": "lan-1g"}},
    "Wi-Fi": {"network": {"preset": "wifi"}, "media": [{"name": "air", "megabits_per_second": 300}]},
    "WAN": {"network": {"preset": "wan"}},
}


def cluster(model, nodes, network, streams, layout="even", machine="desktop-2023", **changes):
    """A cluster file's text. changes: prompt, output, value_bytes, kv_type, coordinator, requests."""
    node = {"name": "pc", "count": nodes, "preset": machine}
    if "media" in NETWORKS[network]:
        node["medium"] = "air"
    prompt, output = changes.get("prompt", 16), changes.get("output", 64)
    requests = changes.get("requests", streams)
    return {
        "model": {"preset": f"llama-3.1-{model}", "weights": "q4_0", "kv_type": changes.get("kv_type", "f16")},
        "coordinator": {"preset": changes.get("coordinator", "server-2023"), "link": {"preset": "lan-10g"}},
        "nodes": [node],
        **NETWORKS[network],
        "load": {"streams": streams, "requests": requests, "prompt_tokens": prompt, "output_tokens": output},
        "scheduler": {"layout": layout, "bytes_per_value": changes.get("value_bytes", 4)},
    }


class Simulator:
    def __init__(self, ctl):
        self.ctl = ctl
        self.folder = tempfile.TemporaryDirectory()
        self.pool = concurrent.futures.ThreadPoolExecutor(2)
        self.count = 0

    def run(self, file):
        """A future of the result, or of None where the model does not fit."""
        self.count += 1
        path = pathlib.Path(self.folder.name) / f"{self.count}.json"
        path.write_text(json.dumps(file), encoding="utf-8")
        return self.pool.submit(self.answer, path)

    def answer(self, path):
        done = subprocess.run([self.ctl, "plan", "--simulate", str(path), "--json"], capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout)
        assert "does not fit" in done.stderr, done.stderr
        return None


def curves(simulator, files, value):
    """files: {label: {x: cluster}} -> {label: [(x, value(result))]}; several values: several dicts."""
    futures = {label: {x: simulator.run(file) for x, file in line.items()} for label, line in files.items()}
    values = value if isinstance(value, tuple) else (value,)
    results = {label: {x: future.result() for x, future in line.items()} for label, line in futures.items()}
    out = [{label: [(x, get(result) if result else None) for x, result in line.items()]
            for label, line in results.items()} for get in values]
    return out if isinstance(value, tuple) else out[0]


def tokens(result):
    return result["tokens_per_second"]


def mean_busy(result):
    return sum(stage["busy"] for stage in result["stages"]) / len(result["stages"])


def plot_stages(simulator):
    """Where a chain stops to scale, by network and streams."""
    panels = []
    for network in NETWORKS:
        files = {f"{streams} streams" if streams > 1 else "1 stream":
                 {stages: cluster("70b", stages, network, streams, output=64 if streams < 1000 else 48)
                  for stages in STAGES["70b"]} for streams in (1, 8, 64, 1000)}
        panels.append(Panel(network, "stages", "tokens/s", curves(simulator, files, tokens), x_ticks=(2, 5, 10, 20, 40, 80)))
    return "70B (Q4_0) in one chain of even stages on desktops: all streams' tokens per second", panels


def plot_models(simulator):
    panels = []
    for model in STAGES:
        files = {f"{streams} streams": {stages: cluster(model, stages, "LAN", streams, output=48)
                                        for stages in STAGES[model]} for streams in (8, 64, 1000)}
        panels.append(Panel(f"{model.upper()}, LAN", "stages", "tokens/s", curves(simulator, files, tokens),
                            x_ticks=(1, 2, 4, 8, 16, 32, 63, 126)))
    return "Three models on a LAN of desktops: all streams' tokens per second", panels


def plot_single(simulator):
    panels = []
    for model in ("8b", "70b"):
        files = {network: {stages: cluster(model, stages, network, 1, output=32) for stages in STAGES[model]}
                 for network in NETWORKS}
        lines = curves(simulator, files, lambda result: 1e3 * result["inter_token_seconds"]["median"])
        panels.append(Panel(f"{model.upper()}: a token", "stages", "ms between tokens", lines,
                            x_ticks=(1, 2, 4, 8, 16, 32, 80)))
    files = {network: {stages: cluster("70b", stages, network, 1, prompt=2048, output=4) for stages in STAGES["70b"]}
             for network in NETWORKS}
    lines = curves(simulator, files, lambda result: result["first_token_seconds"]["median"])
    panels.append(Panel("70B: a prompt of 2048 tokens", "stages", "s to the first token", lines,
                        x_ticks=(2, 5, 10, 20, 40, 80)))
    return "One stream alone", panels


def plot_streams(simulator):
    counts = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    cases = {"LAN": ("LAN", 4), "Wi-Fi": ("Wi-Fi", 4), "Wi-Fi, 1 byte a value": ("Wi-Fi", 1), "WAN": ("WAN", 4)}
    files = {label: {streams: cluster("70b", 16, network, streams, value_bytes=size) for streams in counts}
             for label, (network, size) in cases.items()}
    speed, busy, rows = curves(simulator, files, (tokens, lambda r: 100 * mean_busy(r), lambda r: r["rows_per_step"]))
    ticks = (1, 4, 16, 64, 256)
    return "70B over 16 desktops: what more streams bring", [
        Panel("all streams' tokens per second", "streams", "tokens/s", speed, x_ticks=ticks),
        Panel("stages compute", "streams", "% of the time", busy, y_log=False, y_most=100, x_ticks=ticks),
        Panel("rows in a step", "streams", "rows", rows, x_ticks=ticks)]


def plot_replicas(simulator):
    nodes = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
    cases = {"one chain": ("chain", "server-2023"), "replicas": ("replicas", "server-2023"),
             "replicas, desktop as coordinator": ("replicas", "desktop-2023")}
    files = {label: {n: cluster("8b", n, "LAN", 1000, layout, "office-2020", coordinator=coordinator, output=48)
                     for n in nodes} for label, (layout, coordinator) in cases.items()}
    speed, head, chains = curves(simulator, files, (tokens, lambda r: 100 * r["head_busy"], lambda r: r["chains"]))
    ticks = (2, 8, 32, 128, 512)
    return "8B (Q4_0) on office PCs, 1,000 streams: a chain against replicas of the whole model", [
        Panel("all streams' tokens per second", "nodes", "tokens/s", speed, x_ticks=ticks),
        Panel("the coordinator works on the head", "nodes", "% of the time", head, y_log=False, y_most=100, x_ticks=ticks),
        Panel("chains", "nodes", "chains", chains, x_ticks=ticks)]


def plot_memory(simulator):
    prompts = (128, 512, 1024, 2048, 4096, 8192, 16384)
    files = {kv: {prompt: cluster("70b", 4, "LAN", 128, prompt=prompt, output=64, kv_type=kv, requests=192)
                  for prompt in prompts} for kv in ("f16", "q8_0")}
    running, rows = curves(simulator, files, (
        lambda r: r["most_running"], lambda r: (r["prompt_tokens"] + r["output_tokens"]) / r["seconds"]))
    ticks = (128, 512, 2048, 8192)
    return "70B over four desktops of 26 GiB, 128 streams: KV memory", [
        Panel("sequences that run at once", "prompt tokens", "sequences", running, x_ticks=ticks),
        Panel("tokens of prompts and output", "prompt tokens", "tokens/s", rows, x_ticks=ticks)]


def main():
    simulator = Simulator(sys.argv[1])
    wanted = sys.argv[2:] or ["stages", "models", "single", "streams", "replicas", "memory"]
    PLOTS.mkdir(exist_ok=True)
    data_path = PLOTS / "scaling.json"
    data = json.loads(data_path.read_text(encoding="utf-8")) if data_path.exists() else {}
    for name in wanted:
        title, panels = globals()[f"plot_{name}"](simulator)
        draw(PLOTS / f"{name}.svg", title, panels)
        data[name] = {f"{panel.title} ({panel.y_label})": {
            label: {x: float(f"{y:.4g}") for x, y in line} for label, line in panel.lines.items()} for panel in panels}
        print(f"docs/plots/{name}.svg: {title}", flush=True)
    data_path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
