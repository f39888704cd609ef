#!/usr/bin/env python3
"""Kills the coordinator of a real cluster in the middle of its work, again and again, and starts it anew.

  tests/e2e/restarts.py BIN_DIR [--rounds 5] [--workers 3] [--reach SECONDS] [CASE...]

Cases: kill, lock, drained (default: all). BIN_DIR has efedllm-coord, efedllm-worker and efedllm-ctl.
kill: after each restart the same nodes hold the same layers, no weight was fetched, no ghost is left, and the text is the same; prints
how long it took from the start until it served. --reach: fail where one took longer.
lock: a second coordinator on the same state folder is refused, also while the first hangs; a killed one's lock is no obstacle.
drained: what the operator drained stays drained over a restart, until it is put back.
"""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "netem"))
import lab as labs  # noqa: E402

MODEL = pathlib.Path(__file__).resolve().parents[2] / "models" / "seedling" / "seedling-q8_0.gguf"
PROMPTS = [f"Once upon a time there was a {animal}" for animal in ("shy owl", "red fox", "small bear", "brave mouse")]


class Cluster(labs.Cluster):
    """On loopback; its coordinator can be killed and started again."""

    def __init__(self, lab, args, name):
        # One chain of all, however busy the machine was when they measured themselves.
        super().__init__(lab, args.binaries, MODEL, name, workers=args.workers, coordinator_flags=["--layout", "chain"])
        self.starts = 0

    @property
    def coordinator(self):
        return self.part.processes[0]

    def kill_coordinator(self):
        self.coordinator.child.kill()
        self.coordinator.child.wait()

    def start_coordinator(self):
        self.starts += 1
        command = self.coordinator.child.args
        self.part.start(f"{self.state.name}-{self.starts}", command)
        self.part.processes[0] = self.part.processes.pop()

    def ctl_exit_code(self, *words):
        return subprocess.run([self.binaries / "efedllm-ctl", *words, "--state-dir", self.state], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, check=False).returncode

    def healthy(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=5)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False

    def await_healthy(self, seconds=60):
        self.part.await_alive("the cluster to serve", seconds, self.healthy)

    def nodes(self):
        return {node["node"]: node for node in self.ctl("status")["nodes"]}

    def layers(self):
        return {node: (its["first_layer"], its["last_layer"]) for node, its in self.nodes().items()}

    def ask(self, prompt, tokens):
        """The text; None where the coordinator went away."""
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=60)
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            reply = json.loads(response.read())
            if response.status == 200:
                return reply["choices"][0]["text"]
            assert response.status == 503, reply
        return None

    @contextlib.contextmanager
    def load(self):
        """Clients that ask for one text after the other, and try again when that fails."""
        over = threading.Event()

        def client(prompt):
            while not over.is_set():
                if self.ask(prompt, 200) is None:
                    time.sleep(0.05)
        threads = [threading.Thread(target=client, args=[prompt]) for prompt in PROMPTS]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()


def check_same(cluster, before, layers, text):
    """All that a restart must not change."""
    nodes = cluster.nodes()
    assert set(nodes) == set(before), f"other nodes: {sorted(before)} and now {sorted(nodes)}"
    for node, its in nodes.items():
        assert its["state"] == "ready", its
        assert its["bytes_fetched"] == 0, its
    assert cluster.layers() == layers, f"another plan: {layers} and now {cluster.layers()}"
    assert cluster.ask(PROMPTS[0], 64) == text


def kill(lab, args):
    with Cluster(lab, args, "kill") as cluster:
        cluster.await_healthy(300)
        before, layers, text = cluster.nodes(), cluster.layers(), cluster.ask(PROMPTS[0], 64)
        times, epoch = [], cluster.ctl("status")["epoch"]
        for number in range(args.rounds):
            with cluster.load():
                time.sleep(random.uniform(0.1, 1))
                cluster.kill_coordinator()
                time.sleep(random.choice([0, 0.5, 3]))
                started = time.monotonic()
                cluster.start_coordinator()
                labs.wait_for("the cluster to serve", 60, cluster.healthy, poll=0.01)
                times.append(time.monotonic() - started)
            check_same(cluster, before, layers, text)
            now = cluster.ctl("status")["epoch"]
            assert now > epoch, "an epoch was used twice"
            epoch = now
            print(f"kill: round {number + 1}: served after {times[-1]:.2f} s", flush=True)
        print(f"kill: {args.rounds} restarts: {statistics.median(times):.2f} s (median), {max(times):.2f} s (longest) until it served")
        assert max(times) <= args.reach, f"longer than {args.reach} s"


def lock(lab, args):
    with Cluster(lab, args, "lock") as cluster:
        cluster.await_healthy(300)

        def second():
            command = [str(word) for word in cluster.coordinator.child.args]
            for flag in ("--listen", "--http"):
                command[command.index(flag) + 1] = "127.0.0.1:0"
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 1 and "another coordinator runs with the state dir" in done.stderr, done
        second()
        os.kill(cluster.coordinator.pid, signal.SIGSTOP)
        second()
        os.kill(cluster.coordinator.pid, signal.SIGCONT)
        text = cluster.ask(PROMPTS[0], 16)
        assert text, "the first one was disturbed"
        os.kill(cluster.coordinator.pid, signal.SIGSTOP)
        cluster.kill_coordinator()
        cluster.start_coordinator()
        cluster.await_healthy()
        assert cluster.ask(PROMPTS[0], 16) == text
        print("lock: a second coordinator was refused twice, and a killed one's lock is free")


def drained(lab, args):
    with Cluster(lab, args, "drained") as cluster:
        cluster.await_healthy(300)
        node = next(iter(cluster.nodes()))
        assert cluster.ctl_exit_code("drain") == 2
        assert cluster.ctl_exit_code("drain", "nobody") == 1
        done = cluster.ctl("drain", node[:6], "--wait", "--timeout", "60s")
        assert done and done["node"] == node and done["changed"] and done["state"] == "drained", done
        assert not cluster.ctl("drain", node)["changed"]
        for _ in range(2):
            cluster.kill_coordinator()
            cluster.start_coordinator()
            cluster.await_healthy()
            # A drained node is listed while it is away, too.
            labs.wait_for("all nodes to be back", 30, lambda: [n["state"] != "gone" for n in cluster.nodes().values()] == [True] * args.workers)
            its = cluster.nodes()[node]
            assert its["state"] == "drained" and its["last_layer"] == 0 and "operator" in its["why"], its
        assert cluster.ctl("undrain", node)["changed"]
        labs.wait_for("the node to get layers again", 60, lambda: cluster.nodes()[node]["state"] == "ready")
        text, nodes = cluster.ask(PROMPTS[0], 16), list(cluster.nodes())
        for other in nodes[:-1]:
            assert cluster.ctl_exit_code("drain", other, "--wait", "--timeout", "60s") == 0
        # The last one has nobody to hand over to, and goes on.
        assert cluster.ctl_exit_code("drain", nodes[-1], "--wait", "--timeout", "1s") == 3
        assert cluster.nodes()[nodes[-1]]["state"] == "draining"
        assert cluster.ask(PROMPTS[0], 16) == text
        for other in nodes:
            assert cluster.ctl("undrain", other)["changed"]
        print("drained: over two restarts, until it was put back; the last node still serves")


CASES = {"kill": kill, "lock": lock, "drained": drained}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("cases", nargs="*", default=[*CASES])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--reach", type=float, default=60, help="seconds from the start until it serves")
    args = parser.parse_intermixed_args()
    if unknown := set(args.cases) - set(CASES):
        parser.error(f"unknown cases {sorted(unknown)}: use {', '.join(CASES)}")
    for name in args.cases:
        with labs.Lab() as lab:
            CASES[name](lab, args)


if __name__ == "__main__":
    main()
