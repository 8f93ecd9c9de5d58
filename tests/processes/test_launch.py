"""On one machine nobody else reaches the processes of a run, nor what they agree by."""

import base64
import os
import pickle
import signal
import socket
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from jobs import COMMAND, Job
from runs import command
from torch.distributed.elastic.rendezvous import c10d_rendezvous_backend

LISTENS = "0A"  # as /proc/net/tcp says it
ELSEWHERE = "127.0.0.2"  # one of this machine's addresses, as its network's is


class WritesAFile:
    """Unpickling this would create the file `witness`."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return Path.write_text, (self.witness, "ran")


def listening(pids: list[int]) -> set[tuple[str, int]]:
    """The addresses, in hexadecimal, and ports at which these processes wait for others."""
    inodes = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                inodes.add(os.readlink(handle).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def attack(host: str, port: int, run_id: str, witness: Path) -> None:
    """Leave a pickle where torchrun's rendezvous keeps its own, for it to read."""
    store = torch.distributed.TCPStore(
        host, port, wait_for_workers=False, timeout=timedelta(seconds=1)
    )
    state = base64.b64encode(pickle.dumps(WritesAFile(witness)))
    store.set(f"torch.rendezvous.{run_id}", state)


@pytest.mark.slow
def test_two_processes_listen_to_this_machine_alone(digits, tmp_path):
    witness = tmp_path / "witness"
    words = command(digits, tmp_path / "ckpts", "--gpu=-1,-1", "--epochs", 2)
    with Job(tmp_path / "output", COMMAND, *words, mark=tmp_path) as job:
        job.after_steps(1)
        found = listening([job.process.pid, *job.ranks()])
        assert found  # gloo's
        assert {address for address, _ in found} == {"0100007F"}  # 127.0.0.1
        for _, port in found:
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((ELSEWHERE, port), timeout=5).close()
            with pytest.raises(RuntimeError):
                attack("127.0.0.1", port, "main_imagenet", witness)
        assert job.finish() == 0, job.err.read_text()
    assert not witness.exists()


def test_the_attack_serves_where_torchruns_own_store_listens(tmp_path):
    """Else the test above would prove nothing."""
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    attack(ELSEWHERE, store.port, "some_run", tmp_path / "witness")
    rendezvous = c10d_rendezvous_backend.C10dRendezvousBackend(store, "some_run")
    pickle.loads(rendezvous.get_state()[0])  # as its next look at it does
    assert (tmp_path / "witness").read_text() == "ran"


def test_processes_get_the_time_to_save_that_they_were_given(tmp_path, monkeypatch):
    """With every version of torch: before 2.12 its launcher gave 30 seconds in any case."""
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "2")
    script = Path(__file__).with_name("stubborn.py")
    with Job(tmp_path, script, tmp_path, mark=tmp_path) as job:
        job.wait_until(lambda: job.out.read_text().count("ready") == 2)
        asked = time.monotonic()
        job.process.send_signal(signal.SIGTERM)
        assert job.finish() == 128 + signal.SIGTERM
        assert 2 <= time.monotonic() - asked < 20


def test_an_abort_is_told_as_what_nccl_does(tmp_path):
    start = "import sys; from utils.processes.launch import launch; sys.exit(launch({}, 2))"
    abort = ["-c", f"import os; os.abort()  # {tmp_path}"]
    with Job(tmp_path, "-c", start.format(abort), mark=tmp_path) as job:
        assert job.finish() == 128 + signal.SIGABRT
        said = "killed by SIGABRT, as NCCL does when the other processes don't answer within"
        assert f"{said} 0:10:00" in job.last_line()
