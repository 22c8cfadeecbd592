"""A real SLURM on this machine for as long as a test needs it: a controller and two nodes, without cgroups or systemd.

Needs root and Debian's packages; `missing` says what keeps it from starting.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "mungekey")
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "slurmdbd", "mariadb-server", "iproute2")
NODES = ("iddn1", "iddn2")
HOSTS = Path("/etc/hosts")
MARK = f"# idd-seg test cluster of process {os.getpid()}"

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/{storage}
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_min_interval=500000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=30
MinJobAge={age}
SlurmdTimeout=15
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=64 RealMemory=900000 Gres=gpu:8
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=64 RealMemory=900000 Gres=gpu:8
PartitionName=low Nodes={nodes[0]},{nodes[1]} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes={nodes[0]},{nodes[1]} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""

DATABASE = """\
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
AuthType=auth/munge
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def missing(*, install: bool) -> str | None:
    """Return why no SLURM can be brought up here, or None; first try to install what is missing."""
    if os.geteuid() != 0:
        return "a SLURM of its own needs root"
    lacking = [name for name in (*PROGRAMS, *ACCOUNTING, "ip") if shutil.which(name) is None]
    if lacking and install and shutil.which("apt-get"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (("update", "-qq"), ("install", "-y", "-qq", "--no-install-recommends", *PACKAGES)):
            if subprocess.run(["apt-get", *words], env=env, capture_output=True).returncode:
                return f"apt-get {words[0]} failed, and there is no {lacking[0]}"
        lacking = [name for name in (*PROGRAMS, *ACCOUNTING, "ip") if shutil.which(name) is None]
    return f"there is no {lacking[0]} on this machine" if lacking else None


class Cluster:
    """A running cluster.

    Args:
        folder: of its state and logs.
        accounting: with slurmdbd, which `sacct` asks.
    """

    def __init__(self, folder: Path, *, accounting: bool) -> None:
        self.folder, self.accounting = folder, accounting
        self.host = socket.gethostname().partition(".")[0]
        self.ports = _free_ports(4)
        self.started: list[subprocess.Popen[bytes]] = []
        self.munge: int | None = None
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str, check: bool = True, timeout: float = 60) -> str:
        """Run a program of SLURM, and return what it says."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def start(self) -> None:
        """Bring all up, and wait until both nodes are idle."""
        for name in ("state", "log", "gpus", *NODES):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._write()
        self._start_munge()
        if self.accounting:
            self._start_accounting()
        self._spawn("slurmctld", "-D", "-i")
        for node in NODES:
            self.start_node(node)
        self.wait_idle(60)

    def _write(self) -> None:
        storage = "none" if not self.accounting else "slurmdbd"
        text = CONFIGURATION.format(
            host=self.host, folder=self.folder, ports=self.ports, nodes=NODES, storage=storage, age=300
        )
        if self.accounting:
            text += f"AccountingStorageHost=127.0.0.1\nAccountingStoragePort={self.ports[3]}\n"
        (self.folder / "slurm.conf").write_text(text)
        # Devices that swallow all stand for GPUs, which are only counted.
        for index in range(8):
            device = self.folder / "gpus" / f"nvidia{index}"
            if not device.exists():
                os.mknod(device, 0o20666, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpus/nvidia[0-7]\n")
        # Nodes must have names that resolve: the processes of a run meet at the first one's.
        HOSTS.write_text(HOSTS.read_text().rstrip("\n") + f"\n127.0.0.1 {' '.join(NODES)} {MARK}\n")

    def _start_munge(self) -> None:
        if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
            return
        if not Path("/etc/munge/munge.key").is_file():
            subprocess.run(["mungekey", "-c"], check=True)
        subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "/run/munge"], check=True)
        subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "/usr/sbin/munged"], check=True)
        self.munge = int(Path("/run/munge/munged.pid").read_text())

    def _start_accounting(self) -> None:
        data = self.folder / "mysql"
        data.mkdir()
        install = ("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db")
        subprocess.run(
            [*install, "--auth-root-authentication-method=normal"],
            check=True,
            capture_output=True,
        )
        small = ("--skip-networking", "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900")
        # The socket's path may have 107 characters at most.
        sock = f"/tmp/idd-seg-{os.getpid()}.sock"
        self._spawn("mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={sock}", *small)
        _until(lambda: Path(sock).exists(), 60, "mariadbd")
        text = DATABASE.format(host=self.host, port=self.ports[3], folder=self.folder)
        (self.folder / "slurmdbd.conf").write_text(text)
        (self.folder / "slurmdbd.conf").chmod(0o600)
        self._spawn("slurmdbd", "-D", MYSQL_UNIX_PORT=sock)
        _until(lambda: self._answers("sacctmgr", "-n", "list", "cluster"), 60, "slurmdbd")
        self.run("sacctmgr", "-i", "add", "cluster", "test", check=False)

    def _answers(self, *command: str) -> bool:
        with suppress(subprocess.TimeoutExpired):
            return subprocess.run(command, env=self.environment, capture_output=True, timeout=5).returncode == 0
        return False

    def _spawn(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        log = (self.folder / "log" / f"{Path(command[0]).name}.out").open("ab")
        process = subprocess.Popen(
            command,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # nothing is left behind, even if the tests are killed
        )
        self.started.append(process)
        return process

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        self._spawn("slurmd", "-D", "-N", node)

    def wait_idle(self, seconds: float) -> None:
        """Wait until no node has anything left to do."""

        def idle() -> bool:
            return self.run("sinfo", "-h", "-o", "%T", "-p", "low", check=False).split() == ["idle"]

        _until(idle, seconds, "the nodes")

    def lose_node(self, node: str) -> None:
        """Let a node die: its slurmd, and whatever runs on it, end without a word."""
        daemon = int((self.folder / f"slurmd-{node}.pid").read_text())
        os.kill(daemon, signal.SIGKILL)
        of_jobs = [pid for pid in _processes() if f"SLURMD_NODENAME={node}" in _environment(pid)]
        of_jobs = [pid for pid in of_jobs if f"SLURM_CONF={self.folder / 'slurm.conf'}" in _environment(pid)]
        steps = {found for pid in of_jobs if (found := _step_of(pid)) is not None}
        for pid in [*steps, *of_jobs]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _until(lambda: "down" in self.run("sinfo", "-h", "-n", node, "-o", "%T"), 120, f"the death of {node}")

    def stop(self) -> None:
        """End all jobs and all daemons, whatever state they are in."""
        with suppress(Exception):
            self.run("scancel", "--user=root", "--signal=KILL", "--full", check=False, timeout=20)
            self.run("scancel", "--user=root", check=False, timeout=20)
            self.wait_idle(45)
        ours = [pid for pid in _processes() if f"SLURM_CONF={self.folder / 'slurm.conf'}" in _environment(pid)]
        for pid in [*(process.pid for process in reversed(self.started)), *ours, *filter(None, [self.munge])]:
            with suppress(ProcessLookupError):
                if pid != os.getpid():
                    os.kill(pid, signal.SIGTERM)
        for process in self.started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        lines = [line for line in HOSTS.read_text().splitlines() if MARK not in line]
        HOSTS.write_text("\n".join(lines) + "\n")


@contextmanager
def cluster(folder: Path, *, accounting: bool = False) -> Iterator[Cluster]:
    """Give a cluster, and take it down, also after a failure."""
    found = Cluster(folder, accounting=accounting)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def _end_with_parent() -> None:
    """Let the kernel send this process SIGTERM when its parent ends (PR_SET_PDEATHSIG of prctl)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _until(what: object, seconds: float, name: str) -> None:
    limit = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < limit, f"waited {seconds} s for {name}"
        time.sleep(0.3)


def _free_ports(count: int) -> Sequence[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _environment(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _step_of(pid: int) -> int | None:
    """Return the slurmstepd above a process."""
    while pid > 1:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return None
        if "slurmstepd" in status.splitlines()[0]:
            return pid
        pid = int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))
    return None
