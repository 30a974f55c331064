"""Several processes that train one network, one per GPU, through torch's DistributedDataParallel."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed, multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException

from unet_core.errors import TrainingError, UnetCoreError

_EXIT_REPORTED = 2
# The others wait while rank 0 validates, which may take long on whole slides.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together; rank 0 validates, writes and speaks."""

    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls) -> Processes:
        """The processes of this training: those of `launch`, or of torchrun, or this one alone."""
        if not distributed.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            distributed.init_process_group(_backend(), timeout=_PATIENCE)
        if not distributed.is_initialized():
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def device(self, wanted: str) -> torch.device:
        """The device of this process: its own GPU, or the CPU. Raises TrainingError where there is none."""
        gpus = torch.cuda.device_count()
        if wanted == "cpu" or (wanted == "auto" and not gpus):
            return torch.device("cpu")
        if not gpus:
            raise TrainingError("device 'cuda' is asked for and torch sees no GPU: install a CUDA build, or use cpu")
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", str(self.rank))) % gpus)
        torch.cuda.set_device(own)
        return own

    def mean(self, value: float) -> float:
        """The mean over all processes, in each of them."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.item() / self.count

    def share(self, value: Any) -> Any:
        """Give each process what rank 0 holds; also waits for it."""
        if self.count == 1:
            return value
        held = [value]
        distributed.broadcast_object_list(held)
        return held[0]


def default_count(device: str) -> int:
    """One process per GPU of this machine, and one where none is used or others have launched this process."""
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return 1 if launched or device == "cpu" else max(1, torch.cuda.device_count())


def launch(work: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
    """Run `work(*arguments)` in `count` processes of this machine that train together, and wait for all.

    They meet through a file and talk over the loopback interface: nothing listens beyond this machine. An error
    of the project's own in one of them ends all, and is raised here as TrainingError.
    """
    with TemporaryDirectory() as folder:
        try:
            multiprocessing.start_processes(
                _enter, args=(work, arguments, count, folder), nprocs=count, start_method="spawn"
            )
        except ProcessExitedException as error:
            message = sorted(Path(folder).glob("error-*"))
            if not message:
                raise TrainingError(
                    f"process {error.error_index} of {count} was lost ({error}); the last checkpoint is kept: "
                    "run the same command again"
                ) from error
            raise TrainingError(message[0].read_text(encoding="utf-8")) from error


def _enter(rank: int, work: Callable[..., None], arguments: tuple[Any, ...], count: int, folder: str) -> None:
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, "lo")
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group(_backend(), meeting, timeout=_PATIENCE, rank=rank, world_size=count)
    try:
        work(*arguments)
    except (UnetCoreError, OSError) as error:
        (Path(folder) / f"error-{rank}").write_text(str(error), encoding="utf-8")
        sys.exit(_EXIT_REPORTED)
    except KeyboardInterrupt:
        sys.exit(_EXIT_REPORTED)  # the process that launched this one is interrupted too, and tells
    distributed.destroy_process_group()
    # All is written. What is left is torch's own end after the interpreter's, which now and then aborts on a thread of
    # Gloo's ("terminate called without an active exception"): a training that succeeded would be reported as lost.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _backend() -> str:
    """Gradients travel as they lie, on a GPU or not; small facts always over the CPU."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
