"""The processes of a run on several hosts: they start together, agree, let one of them write, and end together."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from supcon_jax.config import UserError

log = logging.getLogger("supcon_jax")
HEARTBEAT = 30  # s without a sign of life after which a process counts as dead
SHUTDOWN = 60  # s that a process which is done waits for the others
LINGER = 3  # s by which process 0, on which the others' connection hangs, outlives them where all end for one reason
PATIENCE = 5  # s that an answer to the roll call may take


def join(coordinator: str, processes: int | None, process: int | None, seconds: int) -> None:
    """Starts jax on several processes, after a roll call that says who is missing. Call it before any other use of jax.

    coordinator: HOST:PORT, an address of process 0 that all others reach, best one of a private network, for nothing on
        it asks for a password; "auto": address, number and id are what jax finds on Cloud TPU and Slurm, and the roll
        call is jax's own.
    processes, process: how many there are, and which of them this is, 0 to processes - 1.
    seconds: how long the others are waited for.
    Raises UserError: processes are missing, with their ids; a bad address or id; several of one id.
    """
    limits = {"initialization_timeout": seconds, "heartbeat_timeout_seconds": HEARTBEAT, "shutdown_timeout_seconds": SHUTDOWN}
    if coordinator == "auto":
        jax.distributed.initialize(**limits)
    else:
        if processes is None or process is None:
            raise UserError("--coordinator needs --processes=N and --process=I, or --coordinator=auto on Cloud TPU and Slurm")
        if not 0 <= process < processes:
            raise UserError(f"--process={process}: one of 0 to {processes - 1}, for --processes={processes}")
        address = parse(coordinator)
        (call_roll if process == 0 else answer)(address, processes, process, seconds)
        here = {"coordinator_bind_address": coordinator} if process == 0 else {}
        jax.distributed.initialize(coordinator, processes, process, **limits, **here)
    if not chief():
        log.setLevel(logging.WARNING)


def parse(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator={coordinator}: must be HOST:PORT, as 10.0.0.2:8476, or auto")
    return host.strip("[]"), int(port)


def call_roll(address, processes: int, process: int, seconds: float) -> None:
    """Process 0: waits until every other one has told its id, and tells them all how it went."""
    end, found, twice = time.monotonic() + seconds, {}, None
    try:
        server = socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on {shown(address)} ({error.strerror}); give --coordinator an address of its host and a"
            " free port"
        ) from None
    with server:
        while len(found) < processes - 1 and twice is None:
            server.settimeout(max(end - time.monotonic(), 0.001))
            try:
                line, _ = server.accept()
            except TimeoutError:
                break
            line.settimeout(PATIENCE)
            said = heard(line)
            if not said.isdigit() or not 0 < int(said) < processes:
                line.close()  # no process of this run
            elif int(said) in found:
                twice = f"two processes have the id {said}"
                tell([line], twice)
            else:
                found[int(said)] = line
        missing = [other for other in range(1, processes) if other not in found]
        word = twice or (lacking(missing, processes, seconds) if missing else "go")
        tell(found.values(), word)
    if word != "go":
        raise UserError(word)


def answer(address, processes: int, process: int, seconds: float) -> None:
    """Any other process: tells process 0 its id and waits for its word."""
    end, said = time.monotonic() + seconds, ""
    while not said and time.monotonic() < end:
        try:
            with socket.create_connection(address, timeout=PATIENCE) as line:
                line.sendall(f"{process}\n".encode())
                line.settimeout(seconds + PATIENCE)  # it may have begun to wait just now
                said = heard(line)
        except OSError:  # nobody listens yet
            pass
        if not said:
            time.sleep(min(0.2, max(end - time.monotonic(), 0)))
    if said != "go":
        raise UserError(said or f"{lacking([0], processes, seconds)} at {shown(address)}")


def heard(line) -> str:
    """One line of text from the other side, empty if it says none."""
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < 4096:
            part = line.recv(4096)
            if not part:
                break
            text += part
    except OSError:
        pass
    return text.decode(errors="replace").strip()


def tell(lines, word: str) -> None:
    """Says the word to each and waits until it hangs up: the side that hangs up first keeps the port busy for a while."""
    for line in lines:
        try:
            line.sendall(f"{word}\n".encode())
            line.recv(1)
        except OSError:
            pass  # it is gone; whoever needs it will miss it
        line.close()


def lacking(missing, processes: int, seconds: float) -> str:
    ids = ", ".join(map(str, missing))
    which = f"process {ids} is" if len(missing) == 1 else f"processes {ids} are"
    return f"{which} missing: {processes} were to start within {seconds:g} s (--start_seconds)"


def shown(address) -> str:
    return f"{address[0]}:{address[1]}"


def several() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1


def chief() -> bool:
    """Whether this is the process that writes logs, metrics and pictures; checkpoints are written by all."""
    return not several() or jax.process_index() == 0


def agree(said: Mapping[str, str]) -> None:
    """Compares what all processes say, such as their config and the step they start from. All must call it.

    Raises UserError, on every process: it differs somewhere; the line names the process and the key.
    """
    if not several():
        return
    own = np.stack([np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8) for text in said.values()])
    everyone = np.asarray(multihost_utils.process_allgather(own))  # [processes, keys, 32]
    for process, theirs in enumerate(everyone):
        for key, mine, other in zip(said, everyone[0], theirs, strict=True):
            if (mine != other).any():
                text = said[key] if len(said[key]) < 80 else f"{said[key][:77]}..."
                raise UserError(
                    f"process {process} has another {key} than process 0 (process {jax.process_index()}: {text});"
                    " all must run the same command on the same files"
                )


def wait(name: str) -> None:
    """Until every process is here."""
    if several():
        multihost_utils.sync_global_devices(name)


def preempted(step: int) -> bool:
    """Whether one of several processes was told to end (SIGTERM) and this is the step after which all of them do."""
    return several() and multihost_utils.reached_preemption_sync_point(step)


def end(code: int) -> int:
    """The exit code; with other processes in the run, ends this one at once instead.

    An ordinary exit waits until all others are done, and they wait for this one in the next sum over devices.
    """
    if several():
        if sys.exc_info()[0] is not None and code == 1:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        if chief():
            time.sleep(LINGER)
        os._exit(code)
    return code
