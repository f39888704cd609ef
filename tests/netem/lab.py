"""Processes on this machine as if they were on several: network namespaces behind emulated links, CPU quotas, and an end that
leaves nothing behind. For the benchmarks and the end-to-end tests."""
import concurrent.futures
import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

CGROUP = pathlib.Path("/sys/fs/cgroup")
CLONE_NEWNET = 0x40000000
QUOTA_PERIOD_MICROS = 5000  # short, so that a quota slows a step down and does not stop it


class Failure(Exception):
    pass


def wait_for(what, seconds, condition, poll=0.05):
    """Until condition() is true; its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(poll)
    raise Failure(f"timed out waiting for {what}")


class Process:
    def __init__(self, name, command, log, prefix=()):
        self.name, self.log = name, log
        with open(log, "ab") as file:
            self.child = subprocess.Popen([*prefix, *command], stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                          start_new_session=True)

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child.poll() is None

    def stop(self):
        for sent, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(patience)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)  # what it may have left in its group

    def tail(self, lines=15):
        return "\n".join(pathlib.Path(self.log).read_text(errors="replace").splitlines()[-lines:])


class Lab(contextlib.ExitStack):
    """Everything that is started or made here goes when the lab does."""

    def __init__(self):
        super().__init__()
        self.numbers = itertools.count(1)
        self.folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory(prefix="efedllm-lab.")))
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupted)

    @staticmethod
    def _interrupted(number, frame):
        raise KeyboardInterrupt

    def start(self, name, command, netns=None, cgroup=None):
        prefix = inside(netns)
        if cgroup:
            prefix += ["sh", "-c", f'echo $$ >{shlex.quote(str(cgroup / "cgroup.procs"))} && exec "$@"', "sh"]
        process = Process(name, [str(word) for word in command], self.folder / f"{name}.log", prefix)
        self.callback(process.stop)
        return process

    def subset(self):
        """A part of the lab that may go before the rest."""
        part = Part(self)
        self.enter_context(part)
        return part


class Part(contextlib.ExitStack):
    """Processes of a lab that end together."""

    def __init__(self, lab):
        super().__init__()
        self.lab, self.processes = lab, []

    def start(self, name, command, netns=None, cgroup=None):
        process = self.lab.start(name, command, netns, cgroup)
        self.processes.append(process)
        self.callback(process.stop)
        return process

    def await_alive(self, what, seconds, condition):
        """Like wait_for, and fails at once when one of the part's processes has ended."""
        def checked():
            for process in self.processes:
                if not process.alive():
                    raise Failure(f"{process.name} ended before {what}:\n{process.tail()}")
            return condition()
        return wait_for(what, seconds, checked)


def can_emulate_links():
    """None, or why not."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    if not shutil.which("ip"):
        return "there is no ip (iproute2)"
    return None


class Links:
    """Namespaces of 10.77.0.1, .2, ... and the links between them."""

    def __init__(self, names, process, control):
        self.names, self.process, self.control = names, process, control

    def slow_down(self):
        os.kill(self.process.pid, signal.SIGUSR1)

    def cut(self, sender, receiver):
        """Nothing that namespace number `sender` (from 0; None: any) sends reaches `receiver`."""
        self._control("cut", sender, receiver)

    def join(self, sender=None, receiver=None):
        self._control("join", sender, receiver)

    def _control(self, verb, sender, receiver):
        words = ["all" if number is None else str(number + 1) for number in (sender, receiver)]
        with open(self.control, "w") as fifo:
            fifo.write(f"{verb} {' '.join(words)}\n")


@contextlib.contextmanager
def emulate_links(lab, linkem, nodes, rate_mbit=0, delay_micros=0):
    """Yields Links that are fast until slow_down(), then of this rate and one-way delay."""
    with lab.subset() as part:
        names = [f"efedllm-{os.getpid()}-{next(lab.numbers)}" for _ in range(nodes)]
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            part.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        control = lab.folder / f"linkem-{names[0]}.fifo"
        os.mkfifo(control)
        process = part.start(f"linkem-{names[0]}", [linkem, "--held", "--rate", rate_mbit, "--delay", delay_micros,
                                                    "--control", control, *names])
        part.await_alive("the links to be up", 20, lambda: "ready" in process.tail())
        yield Links(names, process, control)


def quota_folder():
    """Where CPU quotas are set: (folder, version), or None."""
    if os.geteuid() != 0:
        return None
    if (CGROUP / "cpu" / "cpu.cfs_quota_us").exists() or (CGROUP / "cpu" / "cpu.shares").exists():
        return CGROUP / "cpu", 1
    control = CGROUP / "cgroup.subtree_control"
    if control.exists():
        if "cpu" not in control.read_text().split():
            with contextlib.suppress(OSError):
                control.write_text("+cpu")
        if "cpu" in control.read_text().split():
            return CGROUP, 2
    return None


def make_quota(lab, name, cores):
    """A cgroup whose processes get so many cores together."""
    folder, version = quota_folder()
    group = folder / f"efedllm-{os.getpid()}-{name}"
    group.mkdir()

    def remove():
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
                return
            time.sleep(0.05)
    lab.callback(remove)
    quota = int(cores * QUOTA_PERIOD_MICROS)
    if version == 1:
        (group / "cpu.cfs_period_us").write_text(str(QUOTA_PERIOD_MICROS))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} {QUOTA_PERIOD_MICROS}")
    return group


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Cluster:
    """A coordinator and workers of one thread each, TLS between them; a context manager. Started, not yet serving. The same name
    in the same lab means the same state folders. netns: the coordinator's namespace and the workers', behind emulated links."""

    def __init__(self, lab, binaries, model, name, workers=2, threads=1, coordinator_flags=(), worker_flags=(), netns=(), cgroups=()):
        self.binaries, self.part, self.state = binaries, lab.subset(), lab.folder / f"{name}-coordinator"
        self.client_netns = netns[0] if netns else None
        self.host, grpc, self.http = "10.77.0.1" if netns else "127.0.0.1", free_port(), free_port()
        self.url = f"http://{self.host}:{self.http}"
        token_file = self.state / "join-token"
        token_file.unlink(missing_ok=True)
        try:
            self.part.start(f"{name}-coordinator", [
                binaries / "efedllm-coord", "--model", model, "--listen", f"{self.host}:{grpc}", "--http", f"{self.host}:{self.http}",
                "--state-dir", self.state, "--min-workers", workers, "--threads", threads, *coordinator_flags], self.client_netns)
            token = self.part.await_alive("a join token", 300, lambda: token_file.exists() and token_file.read_text().strip())
            for i in range(workers):
                self.part.start(f"{name}-worker-{i}", [
                    *self.worker_program(i), "--join", f"{self.host}:{grpc}", "--token", token, "--state-dir",
                    lab.folder / f"{name}-worker-{i}", "--name", f"worker-{i}", "--threads", 1, *worker_flags],
                    netns[i + 1] if netns else None, cgroups[i] if cgroups else None)
        except BaseException:
            self.part.close()
            raise

    def worker_program(self, number):
        """What the worker of this number runs, with flags of its own."""
        return [self.binaries / "efedllm-worker"]

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind not in (None, KeyboardInterrupt):
            for process in self.part.processes:
                print(f"--- {process.name}\n{process.tail()}", file=sys.stderr)
        self.part.close()

    def ctl(self, *words):
        """What efedllm-ctl prints as JSON; None if it failed."""
        done = subprocess.run([self.binaries / "efedllm-ctl", *words, "--state-dir", self.state, "--json"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def await_serving(self, seconds=300):
        self.part.await_alive("the cluster to serve", seconds, lambda: get(self.url + "/health", self.client_netns) is not None)


def inside(netns):
    """What a command starts with to run in this namespace."""
    return ["ip", "netns", "exec", netns] if netns else []


def connect(host, port, netns=None, timeout=60):
    """A TCP connection from this namespace."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sock = pool.submit(_socket_in, netns).result() if netns else socket.socket()
    try:
        sock.settimeout(timeout)
        sock.connect((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _socket_in(netns):
    """In a thread that ends after it, for only that is moved. The socket stays where it was made."""
    with open(f"/run/netns/{netns}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {netns}")
    return socket.socket()


def get(url, netns=None):
    """The body of what is there, as seen from the namespace; None: nothing, or an error."""
    code = "import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
    done = subprocess.run([*inside(netns), sys.executable, "-c", code, url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True, check=False)
    return done.stdout if done.returncode == 0 else None


class CpuWatch:
    """How the machine was used while something was measured."""

    def __init__(self):
        self.before = self._read()

    @staticmethod
    def _read():
        with open("/proc/stat") as file:
            return [int(field) for field in file.readline().split()[1:]]

    def shares(self):
        """Busy and stolen shares of all cores since it was made, in percent."""
        spent = [now - then for now, then in zip(self._read(), self.before)]
        total = max(1, sum(spent[:8]))
        return {"busy": round(100 * (total - spent[3] - spent[4]) / total, 1), "steal": round(100 * spent[7] / total, 1)}
