"""A cluster on this machine whose daemons may die and come back, whose links can be cut, and whose bytes can be spoilt."""
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time

import lab as labs

PROXY = pathlib.Path(__file__).with_name("garbling_proxy.py")
HEAL_SECONDS = 60


class Ports:
    """Ports to listen on that no outgoing connection takes while a daemon is away: below the range that the kernel hands out."""

    def __init__(self):
        self.next = 20000 + os.getpid() * 17 % 8000

    def take(self):
        while True:
            self.next += 1
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("0.0.0.0", self.next))
                return self.next


class Daemon:
    """A process that can be started again."""

    def __init__(self, lab, name, command, netns=None, environment=()):
        self.lab, self.name, self.netns = lab, name, netns
        self.command = ["env", *environment, *command] if environment else command
        self.process, self.starts = None, 0

    def start(self):
        self.starts += 1
        self.process = self.lab.start(self.name, self.command, self.netns)  # appends to its log

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process is not None and self.process.alive()

    def send(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self):
        self.send(signal.SIGKILL)

    def wait(self, seconds=30):
        """Its exit code. Failure: it does not end."""
        try:
            return self.process.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise labs.Failure(f"{self.name} did not end within {seconds} s") from None

    def usage(self):
        """Threads, file descriptors and resident KiB; None while it is not alive."""
        proc = pathlib.Path("/proc") / str(self.pid)
        try:
            fields = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
            return {"threads": int(fields["Threads"]), "fds": len(os.listdir(proc / "fd")), "rss_kib": int(fields["VmRSS"].split()[0])}
        except (OSError, KeyError):
            return None


class FaultCluster:
    """A coordinator, `workers` workers of one thread each, of which `standby` shall hold no layers. Started, not yet serving; a context
    manager. links: "plain" (loopback, TLS), "cut" (each daemon in its own namespace) or "garbled" (loopback behind a proxy, no TLS).
    worker_folders: their state folders. clock_shim: libskewed_clock.so, for skew()."""

    def __init__(self, lab, binaries, model, workers=4, standby=1, links="plain", coordinator_flags=(), worker_flags=(),
                 worker_folders=None, clock_shim=None):
        self.lab, self.binaries, self.part, self.links = lab, pathlib.Path(binaries), lab.subset(), None
        folder = lab.folder / f"cluster-{next(lab.numbers)}"
        self.state, self.clocks, self.clock_shim = folder / "coordinator", folder / "clocks", clock_shim
        self.clocks.mkdir(parents=True)
        self.folders = worker_folders or [folder / f"worker-{i}" for i in range(workers)]
        self.workers, self.ports, insecure = [], Ports(), links == "garbled"
        self.protected = set()  # indices of workers that no fault shall kill
        spaces, hosts = [None] * (workers + 1), ["127.0.0.1"] * (workers + 1)
        try:
            if links == "cut":
                self.links = self.part.enter_context(labs.emulate_links(lab, self.binaries / "linkem", workers + 1))
                spaces, hosts = self.links.names, [f"10.77.0.{i + 1}" for i in range(workers + 1)]
            self.host, self.client_netns, self.http, self.grpc = hosts[0], spaces[0], self.ports.take(), self.ports.take()
            self.url = f"http://{self.host}:{self.http}"
            hops = [self.ports.take() for _ in range(workers)]
            joins, advertised = [self.grpc] * workers, hops
            if insecure:
                joins, advertised = ([self.ports.take() for _ in range(workers)] for _ in range(2))
                self._start_proxy([f"{a}:{self.grpc}" for a in joins] + [f"{a}:{b}" for a, b in zip(advertised, hops)])
            standby_flags = ["--standby", standby] if standby and "--standby" in self._help("efedllm-coord") else []
            self.coordinator = Daemon(lab, "coordinator", [
                self.binaries / "efedllm-coord", "--model", model, "--listen", f"{self.host}:{self.grpc}", "--http",
                f"{self.host}:{self.http}", "--state-dir", self.state, "--min-workers", workers, "--threads", 1, "--layout", "chain",
                *standby_flags, *(["--insecure"] if insecure else []), *coordinator_flags], spaces[0], self._environment("coordinator"))
            self.coordinator.start()
            token = [] if insecure else ["--token", self._token()]
            for i in range(workers):
                name = f"worker-{i}"
                self.workers.append(Daemon(lab, name, [
                    self.binaries / "efedllm-worker", "--join", f"{hosts[0]}:{joins[i]}", *token, "--state-dir", self.folders[i], "--name",
                    name, *self.worker_compute(i), "--listen", f"{hosts[i + 1]}:{hops[i]}", "--advertise", f"{hosts[i + 1]}:{advertised[i]}",
                    *(["--insecure"] if insecure else []), *worker_flags], spaces[i + 1], self._environment(name)))
                self.workers[-1].start()
        except BaseException:
            self.part.close()
            raise

    def worker_compute(self, number):
        """Flags of the worker of this number: what it computes with."""
        return ["--threads", 1]

    def _environment(self, name):
        if not self.clock_shim:
            return ()
        self.skew(name, 0)
        return f"LD_PRELOAD={self.clock_shim}", f"SKEWED_CLOCK={self.clocks / name}"

    def skew(self, name, seconds):
        """The clock of this daemon jumps to so much later than the truth."""
        file = os.open(self.clocks / name, os.O_WRONLY | os.O_CREAT)  # in place: the daemon has mapped it
        try:
            os.write(file, struct.pack("=q", int(seconds * 1e9)))
        finally:
            os.close(file)

    def _help(self, binary):
        return subprocess.run([self.binaries / binary, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout

    def _start_proxy(self, pairs):
        self.garbler = self.lab.folder / "garbling-proxy.fifo"
        os.mkfifo(self.garbler)
        proxy = self.part.start("garbling-proxy", [sys.executable, "-B", PROXY, "--control", self.garbler, *pairs])
        self.part.await_alive("the proxy", 20, lambda: "ready" in proxy.tail())

    def _token(self):
        file = self.state / "join-token"

        def token():
            if not self.coordinator.alive():
                raise labs.Failure(f"the coordinator ended:\n{self.coordinator.process.tail()}")
            return file.exists() and file.read_text().strip()
        return labs.wait_for("a join token", 300, token)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind not in (None, KeyboardInterrupt):
            for daemon in self.daemons():
                print(f"--- {daemon.name}\n{daemon.process.tail(30)}", file=sys.stderr)
        for daemon in self.daemons():
            if daemon.process is not None:
                daemon.send(signal.SIGCONT)
                daemon.process.stop()
        self.part.close()

    def daemons(self):
        return [self.coordinator, *self.workers]

    def garble(self, kind, worker=None):
        """payload or noise: what this worker sends is spoilt from now on; clean: nothing is."""
        with open(self.garbler, "w") as fifo:
            fifo.write(f"{kind} {worker.pid if worker else ''}\n")

    def isolate(self, i, other=None, outgoing=True, incoming=True):
        """Cuts worker i off from the node of this number (0 the coordinator, 1 the first worker; None: all), in these directions."""
        if outgoing:
            self.links.cut(i + 1, other)
        if incoming:
            self.links.cut(other, i + 1)

    def await_http(self, seconds=60):
        """Until it serves, asked as often as a load balancer in a hurry would."""
        def serves():
            with contextlib.suppress(OSError), labs.connect(self.host, self.http, self.client_netns, 2) as sock:
                sock.sendall(b"GET /health HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
                return sock.recv(4096).startswith(b"HTTP/1.1 200")
            return False
        labs.wait_for("the coordinator to serve", seconds, serves, poll=0.02)

    def ctl(self, *words, timeout=20):
        """What efedllm-ctl prints as JSON; None if it failed."""
        with contextlib.suppress(subprocess.TimeoutExpired, json.JSONDecodeError):
            done = subprocess.run([self.binaries / "efedllm-ctl", *words, "--state-dir", self.state, "--json"], stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, text=True, timeout=timeout, check=False)
            if done.returncode == 0:
                return json.loads(done.stdout) if done.stdout.strip() else {}
        return None

    def status(self):
        return self.ctl("status") or {"state": "gone", "reason": "the coordinator does not answer", "nodes": [], "epoch": 0}

    def metric(self, name):
        """The sum of this metric over its labels; None: not there."""
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", labs.get(self.url + "/metrics", self.client_netns) or "", re.MULTILINE)
        return sum(map(float, values)) if values else None

    def index(self, name):
        return next(i for i, worker in enumerate(self.workers) if worker.name == name)

    def stages(self, status=None):
        """Indices of the workers that hold layers, in the order of the chain."""
        nodes = [node for node in (status or self.status())["nodes"] if node["last_layer"] > node["first_layer"]]
        return [self.index(node["name"]) for node in sorted(nodes, key=lambda node: node["first_layer"])]

    def standby(self, status=None):
        holders = self.stages(status)
        return [i for i in range(len(self.workers)) if i not in holders]

    def shape(self, status):
        """(stages, standby nodes), where it serves with all its workers alive and well; else None."""
        nodes = status["nodes"]
        well = all(node["state"] in ("ready", "standby") and node["heartbeat_age_seconds"] < 1.5 for node in nodes)
        if status["state"] != "serving" or not well or sorted(n["name"] for n in nodes) != sorted(w.name for w in self.workers):
            return None
        holders = len(self.stages(status))
        return holders, len(nodes) - holders

    def await_healed(self, shape=None, seconds=HEAL_SECONDS):
        """Until it serves with all workers well (and in this shape); (seconds that it took, the shape)."""
        begun, status = time.monotonic(), {}

        def healed():
            status.clear()
            status.update(self.status())
            found = self.shape(status)
            return found if found and shape in (None, found) else None
        try:
            found = labs.wait_for("the cluster to be whole", seconds, healed, poll=0.1)
        except labs.Failure as failure:
            short = [(node["name"], node["state"], node["first_layer"], node["last_layer"]) for node in status["nodes"]]
            raise labs.Failure(f"{failure}: {status['state']} {status['reason']} {short}") from None
        return time.monotonic() - begun, found

    def log(self, daemon, offset=0):
        with open(daemon.process.log, "rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace")

    def log_size(self, daemon):
        return os.path.getsize(daemon.process.log)
