"""A cluster some of whose workers cheat, under steady load, and what its ledger says of them."""
import contextlib
import http.client
import json
import pathlib
import random
import socket
import subprocess
import threading
import time

import lab as labs

OVERHEAD_BYTES = 64 << 20  # of a worker's memory, as the planner counts (cluster/planner.h)


class CheatCluster(labs.Cluster):
    """cheats: by worker, how it cheats (efedllm-worker-adversary --cheat), or None. owners: by worker, for whom it works; each for
    himself where this says nothing."""

    def __init__(self, lab, binaries, model, name, cheats, owners=(), coordinator_flags=(), worker_flags=()):
        self.cheats, self.folder, self.lab_name = cheats, lab.folder, name
        self.owners = owners or [f"owner-{i}" for i in range(len(cheats))]
        super().__init__(lab, binaries, model, name, workers=len(cheats), worker_flags=worker_flags,
                         coordinator_flags=("--layout", "chain", *coordinator_flags))

    def worker_program(self, number):
        cheat = self.cheats[number]
        program = [self.binaries / "efedllm-worker"] if cheat is None else [
            self.binaries / "efedllm-worker-adversary", "--cheat", cheat, "--report", self._report(number)]
        return [*program, "--owner", self.owners[number]]

    def _report(self, number):
        return self.folder / f"{self.lab_name}-report-{number}.json"

    def report(self, number):
        """What a cheat did so far, as it says itself."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self._report(number).read_text())
        return {"tokens": 0, "wrong_tokens": 0, "tokens_before": 0, "first_wrong": None, "receipts": 0, "wrong_receipts": 0}

    def nodes(self):
        """By worker's number: as `status` has them."""
        status = self.ctl("status")
        named = {node["name"]: node for node in (status or {"nodes": []})["nodes"]}
        return [named.get(f"worker-{i}") for i in range(len(self.cheats))]

    def await_chain(self, seconds=300):
        """Every worker holds layers, or a cheat is out before that; the nodes."""
        def there():
            nodes = self.nodes()
            if not all(nodes):
                return None
            out = any(change["to"] == "evicted" for changes in self.trust().values() for change in changes)
            return nodes if out or all(node["last_layer"] > 0 for node in nodes) else None
        return self.part.await_alive("every worker to hold layers", seconds, there)

    def evidence(self):
        """All that was proven, in the order in which it was found."""
        folder = self.state / "evidence"
        files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns) if folder.exists() else []
        return [json.loads(file.read_text()) for file in files]

    def entries(self, kind, count=100_000):
        return self.ctl("ledger", "show", "--kind", kind, "-n", str(count)) or []

    def trust(self):
        """By node's id, the changes of its state, in order: {"from", "to", "reason", ...}."""
        changes = {}
        for entry in self.entries("trust"):
            if "to" in entry["memo"]:
                changes.setdefault(entry["about"], []).append(entry["memo"] | {"time_micros": entry["time_micros"]})
        return changes

    def price(self, node):
        """Micro-credits for 10^12 floating-point operations of its work, posted or not; 0: it did none."""
        earned = flops = 0
        for entry in self.entries("pending"):
            own = [posting["amount_micros"] for posting in entry["postings"] if posting["account"].endswith(node)]
            earned += sum(own)
            flops += entry["flops"] if own else 0
        return earned * 1e12 / flops if flops else 0

    def statement(self, node):
        """Its totals; all 0 where nothing was booked for it."""
        done = self.ctl("ledger", "statement", "--node", node)
        return done["totals"] if done else dict.fromkeys(
            ("earned_micros", "posted_micros", "voided_micros", "penalties_micros", "in_escrow_micros", "flops"), 0)

    def verify(self):
        """Of a copy, so that every byte is proven; raises where it is not."""
        copy = self.folder / f"{self.lab_name}-copy.db"
        copy.unlink(missing_ok=True)
        for words in (["backup", "--state-dir", self.state, "--out", copy], ["verify", "--file", copy]):
            done = subprocess.run([self.binaries / "efedllm-ctl", "ledger", *words, "--json"], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise labs.Failure(f"ledger {words[0]}: {done.stderr}")
        return json.loads(done.stdout)


class Load:
    """So many clients, each of which makes one completion after the other; a context manager. Failures are counted: the cluster may be
    between two plans."""

    def __init__(self, cluster, streams, vocabulary, prompt=24, tokens=170, seed=1):
        self.cluster, self.vocabulary, self.prompt, self.count = cluster, vocabulary, prompt, tokens
        self.over, self.lock = threading.Event(), threading.Lock()
        self.tokens = self.requests = self.failures = 0
        self.open = set()
        self.threads = [threading.Thread(target=self._run, args=[random.Random(f"{seed}-{i}")], daemon=True) for i in range(streams)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, value, traceback):
        """Requests under way are given up: what is left of the cluster may be too small for the model."""
        self.over.set()
        with self.lock:
            for connection in self.open:
                with contextlib.suppress(OSError, AttributeError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)

    def _run(self, rng):
        while not self.over.is_set():
            prompt = [rng.randrange(self.vocabulary // 2, self.vocabulary) for _ in range(self.prompt)]
            used = self._ask({"prompt": prompt, "max_tokens": self.count, "ignore_eos": True, "temperature": 0})
            with self.lock:
                if used is None:
                    self.failures += 1
                else:
                    self.requests += 1
                    self.tokens += used
            if used is None:
                time.sleep(0.1)

    def _ask(self, body):
        connection = http.client.HTTPConnection(self.cluster.host, self.cluster.http, timeout=300)
        with self.lock:
            self.open.add(connection)
        try:
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            reply = json.loads(response.read())
            if response.status == 200:
                return reply["usage"]["total_tokens"]
        except (OSError, http.client.HTTPException, ValueError):
            pass
        finally:
            with self.lock:
                self.open.discard(connection)
            connection.close()
        return None


def inspect(binaries, model):
    done = subprocess.run([binaries / "efedllm-ctl", "model", "inspect", "--model", model, "--tensors", "--json"], stdout=subprocess.PIPE,
                          check=True)
    return json.loads(done.stdout)


def memory_for_stages(report, stages, context, kv_type):
    """--memory of a worker, so little that no fewer workers than this can hold the model and a sequence of the whole context."""
    layers = sum(tensor["bytes"] for tensor in report["tensors"] if tensor["name"].startswith("blk."))
    share = (0.55 / stages + 0.45 / (stages - 1)) * (layers + context * report["kv_bytes_per_token"][kv_type])
    return int((OVERHEAD_BYTES + share) * 8 / 7)  # an eighth keeps rows for audits


def adversary(binaries):
    """Where the worker that cheats is; None: this build has none."""
    program = pathlib.Path(binaries) / "efedllm-worker-adversary"
    return program if program.exists() else None
