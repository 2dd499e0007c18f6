"""A real Slurm of one node, started by hand in a folder: `python tests/slurm.py <folder>` runs it until interrupted.

Needs the programs of the packages slurm-wlm and munge, and nothing of the machine's own configuration.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

from workflow import ran

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo")
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=1
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs that are not here."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]


class Cluster:
    """Runs between `with` and its end; `environment` is what commands need to reach it."""

    def __init__(self, folder: Path):
        # Sockets have paths of at most 107 bytes.
        self.folder = folder.resolve()
        self.environment = os.environ | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{self.folder}/bin:{SEARCHED}",
        }
        self.daemons: list[subprocess.Popen] = []

    def _start(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}.out").open("w")
        with log:
            self.daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)
            )

    def run(self, *command: str) -> str:
        """Output of a command of Slurm's."""
        done = ran(command, 60, env=self.environment)
        return done.stdout + done.stderr

    def __enter__(self) -> "Cluster":
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        key, seed = self.folder / "munge.key", self.folder / "munge.seed"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        self.folder.chmod(0o755)
        settings = {
            "folder": self.folder,
            "host": socket.gethostname().split(".")[0],
            "ports": _free_ports(2),
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "cpus": os.cpu_count(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        }
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**settings))
        # Snakemake's plugin hides SLURM_CONF from the srun within a job, which would look for the configuration in /etc.
        srun = self.folder / "bin" / "srun"
        srun.parent.mkdir(exist_ok=True)
        real = shutil.which("srun", path=SEARCHED)
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.environment["SLURM_CONF"]} exec {real} "$@"\n')
        srun.chmod(0o755)
        munge = [
            f"--{name}={self.folder}/munge.{name.split('-')[0]}"
            for name in ("key-file", "socket", "pid-file", "log-file")
        ]
        try:
            self._start("munged", "--foreground", "--force", *munge, f"--seed-file={seed}")
            self._start("slurmctld", "-D", "-i", "-f", self.environment["SLURM_CONF"])
            self._start("slurmd", "-D", "-f", self.environment["SLURM_CONF"])
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while "idle" not in (said := self.run("sinfo", "--noheader", "--format=%T")):
            if time.monotonic() > end:
                logs = "\n".join(path.read_text() for path in sorted(self.folder.glob("*.[lo]*g*")))
                raise RuntimeError(f"Slurm did not start in {seconds:.0f} s: {said}\n{logs[-4000:]}")
            time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        try:
            self.run("scancel", "--full", f"--user={pwd.getpwuid(os.getuid()).pw_name}")
        finally:
            for daemon in reversed(self.daemons):
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with Cluster(folder) as cluster:
        print(*(f"export {name}={cluster.environment[name]}" for name in ("SLURM_CONF", "PATH")), sep="\n", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
