"""The state from which a stopped or killed run goes on, bit for bit: what it holds, when and how it is written.

A checkpoint is what torch.save writes, then eight bytes that say so, then the SHA-256 of all before these. The
last two are kept, so that a kill at any moment, or damage to one of them, leaves one that is whole.
"""

import hashlib
import os
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from kit.core import stopping
from kit.core.errors import Damaged, KitError, ignore
from kit.core.files import atomic
from kit.core.runs import RunDir

MAGIC = b"kit-ckp1"
TRAILER = len(MAGIC) + hashlib.sha256().digest_size
SHARE = 0.01  # of the time of training that checkpoints at the ends of epochs may take
BYTES_PER_SECOND = 100e6  # assumed until the first one is written
LEAST_SECONDS = 0.01  # for a file and its flush
GRACE_SECONDS = 2.0  # for what is being written when the command ends at once


class Stateful(Protocol):
    """Something with a state that a checkpoint holds."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


class Checkpoints:
    """Keeps the state of one training in its run directory, and brings it back.

    Writing is off the path of the updates: the state is copied to the host's memory (from a GPU behind the kernels
    that are under way, without a wait), and a thread serialises, hashes, flushes and renames it. One is written at
    a time. One that is due by time while the one before is still being written comes at the next look; with 0
    minutes the training waits for it.

    At the end of an epoch one is written where it costs no more than 1 % of the time since the last one: where
    that is at least 100 times what the last one took, copy and writing together (before there was one, the state's
    size at 100 MB/s). With epochs of a second that is one in many epochs. benchmarks/checkpoints.py measures it.

    Parameters
    ----------
    run : RunDir
        Holds checkpoint.pt and, the one before, checkpoint.before.pt.
    minutes : float
        Between checkpoints, whatever they cost.
    accelerator : Accelerator
        Says on what the training runs, and whether this is the process that writes.
    parts : mapping of str to Stateful
        What makes up the state; None: what this training has not.
    losses : Tensor
        Of each update.
    history : list
        The lines that were logged.

    Attributes
    ----------
    of : str
        The run's fingerprint: a checkpoint of another one is not taken.
    say : callable
        Takes lines about what is taken up and what is damaged.
    step : int
        The updates that the newest checkpoint on disk holds; 0: there is none.
    augments : bool
        Whether the device augments images.
    """

    def __init__(
        self,
        run: RunDir,
        minutes: float,
        accelerator: Accelerator,
        parts: Mapping[str, Stateful | None],
        losses: torch.Tensor,
        history: list[dict[str, Any]],
    ):
        self.run, self.minutes, self.accelerator = run, minutes, accelerator
        self.parts, self.losses, self.history = parts, losses, history
        self.of, self.say, self.step, self.augments = "", ignore, 0, False
        self.sound: Callable[[int], bool] = lambda done: True  # whether the state is worth being kept
        self.need: Callable[[], None] = lambda: None  # raises where another process has taken the run over
        self._seconds: float | None = None  # that the last one took
        self._taken = time.monotonic()  # when that was
        self._newest_is_whole = True
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._held: tuple[dict[str, Any], Callable[[], None]] | None = None

    # Going on.

    def restore(self) -> tuple[int, int]:
        """Take up the newest checkpoint that is whole and of this run.

        Returns
        -------
        done, logged : int
            Updates that were made, and that were logged; 0 where there is no such checkpoint, which is said where
            there is another.

        Raises
        ------
        KitError
            Where it was made on something else than this, where the same bits cannot be had.
        """
        self._taken = time.monotonic()
        state = self._newest()
        if state is None:
            return 0, 0
        for name, part in self.parts.items():
            if part is not None:
                part.load_state_dict(state[name])
        self.losses.copy_(state["losses"])
        self.history[:] = state["history"]
        self.step = state["step"]
        return state["step"], state["logged"]

    def _newest(self) -> dict[str, Any] | None:
        """The content of the newest checkpoint that can be used; what is wrong with one that cannot is said."""
        wrong: list[str] = []
        for path in (self.run.checkpoint, self.run.checkpoint_before):
            if not path.is_file():
                continue
            try:
                state = read_checkpoint(path)
                if state["of"] != self.of:
                    raise Damaged(f"{path} is of another run, or of another config")
            except Damaged as error:
                self._newest_is_whole &= path != self.run.checkpoint
                wrong.append(str(error))
                continue
            if state["made_on"] != (here := _made_on(self.accelerator, self.augments)):
                raise KitError(
                    f"{path} was made on {state['made_on']}, this is {here}, where the same bits cannot be had; "
                    "go on there, or delete that file to start this run anew"
                )
            for line in wrong:
                self.say(f"{line}; the checkpoint before, after update {state['step']}, is used")
            self.say("goes on from its last checkpoint" if not wrong else "goes on from the checkpoint before")
            return state
        for line in wrong:
            self.say(f"{line}; " + ("the run begins anew" if line == wrong[-1] else "it is not used"))
        return None

    # Writing.

    def offer(self, done: int, logged: int, epoch_ends: bool) -> None:
        """Write one in the background where one is due.

        Parameters
        ----------
        done, logged : int
            Updates made, and of these logged; their losses are known to be finite.
        epoch_ends : bool
            Whether an epoch has ended with them.

        Raises
        ------
        KitError
            Where the one before could not be written.
        """
        self._raise()
        if not self.accelerator.is_main_process:
            return
        since = time.monotonic() - self._taken
        if since >= 60 * self.minutes:
            if self.minutes == 0 or not self._busy:
                self.take(done, logged)
        elif epoch_ends and not self._busy and since * SHARE >= self._expected_seconds(done, logged):
            self.take(done, logged)

    def take(self, done: int, logged: int) -> None:
        """Copy the state and begin to write it; what was being written is waited for."""
        self._wait()
        if not (self.accelerator.is_main_process and self.sound(done)):
            return
        self.need()
        self._held, self._taken = None, time.monotonic()
        state, arrived = host_copy(self._state(done, logged))
        self._thread = threading.Thread(target=self._write, args=(state, arrived, self._taken), daemon=True)
        self._thread.start()

    def hold(self, done: int, logged: int) -> None:
        """Copy the state, to be written only if `finish` is called: what follows may change the model."""
        if self.accelerator.is_main_process and (self._busy or self.step != done) and self.sound(done):
            self._held = host_copy(self._state(done, logged))

    def finish(self) -> None:
        """Write what is held, and wait until all is on disk.

        Raises
        ------
        KitError
            Where it could not be written.
        """
        self._wait()
        held, self._held = self._held, None
        if held and held[0]["step"] != self.step:
            self._write(*held, time.monotonic())
        self._raise()

    def close(self) -> None:
        """Wait until nothing is being written any more, but not for long where the command ends at once."""
        if self._thread:
            self._thread.join(GRACE_SECONDS if stopping.at_once() else None)
        self._held = None

    @property
    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _wait(self) -> None:
        if self._thread:
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error:
            raise self._error

    def _expected_seconds(self, done: int, logged: int) -> float:
        if self._seconds is None:
            self._seconds = LEAST_SECONDS + size_of(self._state(done, logged)) / BYTES_PER_SECOND
        return self._seconds

    def _state(self, done: int, logged: int) -> dict[str, Any]:
        """What a checkpoint holds; the tensors are those in use."""
        return {
            "of": self.of,
            "made_on": _made_on(self.accelerator, self.augments),
            "step": done,
            "logged": logged,
            "losses": self.losses,
            "history": self.history,
            **{name: part.state_dict() if part is not None else None for name, part in self.parts.items()},
        }

    def _write(self, state: dict[str, Any], arrived: Callable[[], None], began: float) -> None:
        """Write a state that has been copied, in the thread; an error is kept for the loop."""
        try:
            arrived()
            self.need()
            write_checkpoint(self.run, state, self._newest_is_whole)
            self._newest_is_whole, self.step = True, state["step"]
            self._seconds = time.monotonic() - began
        except Exception as error:
            self._error = error


def _made_on(accelerator: Accelerator, augments: bool) -> str:
    """Say on what a training runs: a checkpoint can go on only where that is the same."""
    precision = accelerator.mixed_precision.replace("no", "fp32")
    there = ", which augments" if augments else ""
    return f"{accelerator.num_processes} × {accelerator.device.type} in {precision}{there}"


def write_checkpoint(run: RunDir, state: Mapping[str, Any], keep: bool = True) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts as a run's newest checkpoint.

    Parameters
    ----------
    run : RunDir
    state : mapping
    keep : bool
        The newest one so far becomes the one before; False: it is damaged, and the one before stays.
    """
    with atomic(run.checkpoint, size_of(state)) as temporary:
        torch.save(dict(state), temporary)
        with open(temporary, "rb+") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            file.write(MAGIC + digest)
            file.flush()
            os.fsync(file.fileno())
        if keep and run.checkpoint.is_file():  # only now, as the new one is whole on disk
            os.replace(run.checkpoint, run.checkpoint_before)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state that a checkpoint holds, its tensors on the CPU; nothing in the file is executed.

    Who takes it up copies it to where it belongs: loaded onto a GPU it would lie there twice.

    Raises
    ------
    Damaged
        Where the file is not what was written.
    KitError
        Where it is, but this torch cannot load it.
    """
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END) - TRAILER
        file.seek(max(0, length))
        trailer = file.read()
        if length <= 0 or trailer[: len(MAGIC)] != MAGIC:
            raise Damaged(f"{path} is damaged ({'its end is missing' if length > -TRAILER else 'it is empty'})")
        file.seek(0)
        if _digest(file, length) != trailer[len(MAGIC) :]:
            raise Damaged(f"{path} is damaged (it does not hold what was written)")
        file.seek(0)
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError) as error:  # it is whole: of another version of torch
            reason = " ".join(str(error).split())[:200]
            raise KitError(f"{path} cannot be loaded ({reason}); delete it to begin this run anew") from error


def _digest(file: Any, length: int) -> bytes:
    """The SHA-256 of so many bytes from here on."""
    digest = hashlib.sha256()
    while length > 0 and (chunk := file.read(min(length, 1 << 20))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.digest()


def host_copy(state: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[], None]]:
    """Copy a state to the host's memory, so that what goes on does not change it.

    Tensors on a CUDA device are copied on the current stream, behind the kernels that change them and before those
    that follow, into pinned memory: nothing waits.

    Returns
    -------
    copy : dict
    arrived : callable
        Waits until the copy is complete; to be called, from any thread, before it is read.
    """
    devices: set[torch.device] = set()

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if value.device.type != "cuda":
                return value.detach().to("cpu", copy=True)
            devices.add(value.device)
            there = torch.empty_like(value, device="cpu", pin_memory=True, requires_grad=False)
            return there.copy_(value.detach(), non_blocking=True)
        if isinstance(value, Mapping):
            return {key: copied(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([copied(each) for each in value])
        return value

    made = copied(state)
    events = []
    for device in devices:
        with torch.cuda.device(device):
            event = torch.cuda.Event()
            event.record()
            events.append(event)

    def arrived() -> None:
        for event in events:
            event.synchronize()

    return made, arrived


def size_of(state: Any) -> int:
    """Return the bytes of all tensors in a state."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(size_of(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(size_of(value) for value in state)
    return 0
