"""The faults that bench/faults.py, bench/soak.py and tests/e2e/faults.py put a FaultCluster to. Each is a context manager: the fault is
there at its beginning, and undone at its end. It notes in the Injection when it struck and what it did."""
import contextlib
import dataclasses
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import lab as labs

SLOW_PERIOD_SECONDS = 0.02
SLOW_FACTOR = 10
# Lets a process run for one tenth of each period.
THROTTLE = """
import os, signal, sys, time
pid, period, factor = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
try:
    while True:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(period * (1 - 1 / factor))
        os.kill(pid, signal.SIGCONT)
        time.sleep(period / factor)
except ProcessLookupError:
    pass
"""


@dataclasses.dataclass
class Injection:
    """A fault as it happened."""
    at: float = 0       # monotonic
    at_wall: float = 0  # since 1970
    what: str = ""
    recovered: float = 0  # monotonic; of faults that wait for it themselves
    facts: dict = dataclasses.field(default_factory=dict)

    def strikes(self, what):
        self.at, self.at_wall, self.what = time.monotonic(), time.time(), what


def holder(cluster, rng, lethal=False):
    """One of the workers that hold layers; one that is not protected, if it is to die. Waits for one: on a busy machine a worker may
    just have been lost by itself."""
    return rng.choice(labs.wait_for("a worker with layers", 30, lambda: [
        i for i in cluster.stages() if not (lethal and i in cluster.protected)]))


@contextlib.contextmanager
def kill(cluster, rng, injection):
    worker = cluster.workers[holder(cluster, rng, lethal=True)]
    injection.strikes(f"kill -9 {worker.name}")
    worker.kill()
    yield
    worker.wait()
    worker.start()


@contextlib.contextmanager
def stop(cluster, rng, injection):
    worker = cluster.workers[holder(cluster, rng)]
    injection.strikes(f"SIGSTOP {worker.name}")
    worker.send(signal.SIGSTOP)
    yield
    worker.send(signal.SIGCONT)


@contextlib.contextmanager
def slow(cluster, rng, injection):
    worker = cluster.workers[holder(cluster, rng)]
    injection.strikes(f"{worker.name} {SLOW_FACTOR} times slower")
    throttle = subprocess.Popen([sys.executable, "-c", THROTTLE, str(worker.pid), str(SLOW_PERIOD_SECONDS), str(SLOW_FACTOR)],
                                stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        throttle.kill()
        throttle.wait()
        worker.send(signal.SIGCONT)


@contextlib.contextmanager
def restart(cluster, rng, injection):
    """Away for a moment only: it may be back before anybody noticed."""
    worker = cluster.workers[holder(cluster, rng, lethal=True)]
    politely = rng.random() < 0.3
    injection.strikes(f"restart of {worker.name}" + (" by SIGTERM" if politely else ""))
    worker.send(signal.SIGTERM if politely else signal.SIGKILL)
    worker.wait()
    worker.start()
    yield


@contextlib.contextmanager
def _cut(cluster):
    try:
        yield
    finally:
        cluster.links.join()


@contextlib.contextmanager
def cut_both(cluster, rng, injection):
    i = holder(cluster, rng)
    with _cut(cluster):
        injection.strikes(f"{cluster.workers[i].name} cut off from all")
        cluster.isolate(i)
        yield


@contextlib.contextmanager
def cut_coordinator(cluster, rng, injection):
    i = holder(cluster, rng)
    with _cut(cluster):
        injection.strikes(f"{cluster.workers[i].name} cut off from the coordinator")
        cluster.isolate(i, 0)
        yield


@contextlib.contextmanager
def cut_oneway(cluster, rng, injection):
    """It hears and is not heard, or the reverse; of all, or of the coordinator alone."""
    i = holder(cluster, rng)
    outgoing, other = rng.random() < 0.5, rng.choice([None, None, 0])
    with _cut(cluster):
        whom, name = "all" if other is None else "the coordinator", cluster.workers[i].name
        injection.strikes(f"{name} is not heard by {whom}" if outgoing else f"{name} hears nothing of {whom}")
        cluster.isolate(i, other, outgoing, not outgoing)
        yield


@contextlib.contextmanager
def cut_edge(cluster, rng, injection):
    """Two neighbours of the chain, both of whom reach the coordinator; in both directions or in one."""
    chain = cluster.stages()
    if len(chain) < 2:
        raise labs.Failure("one stage has no edge between workers")
    at = rng.randrange(len(chain) - 1)
    a, b = chain[at], chain[at + 1]
    outgoing, incoming = rng.choice([(True, True), (True, False), (False, True)])
    with _cut(cluster):
        injection.strikes(f"{cluster.workers[a].name} {'-' if incoming else ''}x{'-' if outgoing else ''} {cluster.workers[b].name}")
        cluster.isolate(a, b + 1, outgoing, incoming)
        yield


@contextlib.contextmanager
def garbage(cluster, rng, injection):
    worker, kind = cluster.workers[holder(cluster, rng)], rng.choice(["payload", "payload", "noise"])
    injection.strikes(f"{worker.name} sends spoilt bytes ({kind})")
    cluster.garble(kind, worker)
    try:
        yield
    finally:
        cluster.garble("clean")


@contextlib.contextmanager
def two(cluster, rng, injection):
    """Two that hold layers, where that many do."""
    holders = cluster.stages()
    free = [i for i in range(len(cluster.workers)) if i not in cluster.protected]
    rng.shuffle(free)
    victims = [cluster.workers[i] for i in sorted(free, key=lambda i: i not in holders)[:2]]
    injection.strikes("kill -9 " + " and ".join(worker.name for worker in victims))
    for worker in victims:
        worker.kill()
    yield
    for worker in victims:
        worker.wait()
        worker.start()


@contextlib.contextmanager
def leave(cluster, rng, injection):
    worker = cluster.workers[holder(cluster, rng, lethal=True)]
    injection.strikes(f"SIGTERM to {worker.name}")
    worker.send(signal.SIGTERM)
    yield
    code = worker.wait()
    if code != 0:
        raise labs.Failure(f"{worker.name} ended with {code} after SIGTERM")
    worker.start()


@contextlib.contextmanager
def drain(cluster, rng, injection):
    worker = cluster.workers[holder(cluster, rng)]
    injection.strikes(f"drain of {worker.name}")
    if cluster.ctl("drain", worker.name, timeout=60) is None:
        raise labs.Failure("efedllm-ctl drain failed")
    try:
        yield
        labs.wait_for(f"{worker.name} to hold no layers", 60, lambda: cluster.workers.index(worker) not in cluster.stages())
    finally:
        cluster.ctl("undrain", worker.name)


@contextlib.contextmanager
def rolling(cluster, rng, injection):
    """All workers, one after the other, each as soon as the cluster is whole again."""
    injection.strikes("rolling restart of all workers")
    for worker in cluster.workers:
        worker.send(signal.SIGTERM)
        worker.wait()
        worker.start()
        cluster.await_healed()
    injection.recovered = time.monotonic()
    yield


@contextlib.contextmanager
def coordinator(cluster, rng, injection):
    """Killed, and started a moment later."""
    before = {node["node"] for node in cluster.status()["nodes"]}
    injection.strikes("kill -9 of the coordinator")
    cluster.coordinator.kill()
    cluster.coordinator.wait()
    time.sleep(rng.uniform(0, 0.5))
    started = time.monotonic()
    cluster.coordinator.start()
    cluster.await_http()
    injection.recovered = time.monotonic()
    injection.facts["start_to_serving"] = injection.recovered - started
    status = cluster.status()
    injection.facts["bytes_fetched"] = sum(node["bytes_fetched"] for node in status["nodes"])
    yield
    cluster.await_healed()
    after = {node["node"] for node in cluster.status()["nodes"]}
    if before != after:
        raise labs.Failure(f"other nodes than before: {before ^ after}")


@contextlib.contextmanager
def memory(cluster, rng, injection):
    """No further allocation of a worker succeeds."""
    worker = cluster.workers[holder(cluster, rng, lethal=True)]
    size = int((pathlib.Path("/proc") / str(worker.pid) / "statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    injection.strikes(f"{worker.name} gets no more memory")
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (size, size))
    yield
    worker.kill()
    worker.wait()
    worker.start()


@contextlib.contextmanager
def disk(cluster, rng, injection):
    """The disk of one that may take over is full when a worker dies: a standby's, if there is one."""
    status = cluster.status()
    i = holder(cluster, rng, lethal=True)
    victim, full = cluster.workers[i], rng.choice(cluster.standby(status) or [j for j in cluster.stages(status) if j != i])
    filler = cluster.folders[full] / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    injection.strikes(f"kill -9 {victim.name}, the disk of {cluster.workers[full].name} is full")
    victim.kill()
    try:
        yield
    finally:
        filler.unlink()
        victim.wait()
        victim.start()


@contextlib.contextmanager
def clock(cluster, rng, injection):
    """The clock of one daemon jumps."""
    name = rng.choice([daemon.name for daemon in cluster.daemons()])
    seconds = rng.choice([-86400, -3600, -30, -2, 2, 30, 3600, 86400])
    injection.strikes(f"clock of {name} jumps by {seconds} s")
    cluster.skew(name, seconds)
    yield
    cluster.skew(name, 0)


@dataclasses.dataclass(frozen=True)
class Fault:
    inject: object
    links: str = "plain"   # what FaultCluster needs
    loops: bool = False    # the clients go on with new requests until it is undone
    times: int = 20        # as it is judged
    median: float = 1.5    # seconds of pause, at most
    p99: float = 5.0
    may_fail: bool = False  # requests may, with a clear reason
    disks: bool = False    # each worker's state is on a small disk of its own
    clocks: bool = False


FAULTS = {
    "kill": Fault(kill, times=50),
    "stop": Fault(stop),
    "cut-both": Fault(cut_both, links="cut"),
    "cut-coordinator": Fault(cut_coordinator, links="cut"),
    "cut-oneway": Fault(cut_oneway, links="cut"),
    "cut-edge": Fault(cut_edge, links="cut"),
    "slow": Fault(slow),
    "restart": Fault(restart),
    "garbage": Fault(garbage, links="garbled"),
    "two": Fault(two, may_fail=True),
    "leave": Fault(leave, median=0.5, p99=0.5),
    "drain": Fault(drain, median=0.5, p99=0.5),
    "rolling": Fault(rolling, loops=True, times=5, median=0.5, p99=0.5),
    "coordinator": Fault(coordinator, times=50, may_fail=True),
    "memory": Fault(memory),
    "disk": Fault(disk, disks=True),
    "clock": Fault(clock, clocks=True),
}


def cannot_run(fault, cluster_binaries):
    """None, or why this machine can't do it."""
    if fault.links == "cut":
        return labs.can_emulate_links()
    if fault.disks and os.geteuid() != 0:
        return "small disks need root"
    if fault.clocks and not clock_shim(cluster_binaries):
        return "there is no libskewed_clock.so beside the binaries"
    return None


def clock_shim(binaries):
    path = pathlib.Path(binaries) / "libskewed_clock.so"
    return path.resolve() if path.exists() else None


@contextlib.contextmanager
def small_disk(lab, megabytes=64):
    """A folder on a disk of its own of this size."""
    folder = lab.folder / f"disk-{next(lab.numbers)}"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)
