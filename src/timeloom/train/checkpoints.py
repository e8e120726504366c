"""Checkpoints of a training run: folders of safetensors, written and read by all processes together.

PyTorch's distributed checkpoint (DCP) lays the tensors out anew for any number of processes. Its safetensors form has
no pickle in it: names, shapes and places of the shards stand in the files' headers.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from timeloom.errors import TimeloomError
from timeloom.train.parallel import Processes

FILE_BYTES = 2**30
"""Of the tensors in one file, all processes together: a file is put together in memory."""
INDEX = "files.json"

State = dict[str, dict[str, Tensor]]
"""Tensors by part ("network", ...) and name: whole ones, the same on every process, or shards (DTensor)."""


class Checkpoints:
    """Folders named by the samples seen, each whole or absent; the last few are kept."""

    def __init__(self, folder: Path, keep: int, processes: Processes) -> None:
        self.folder, self.keep, self.processes = folder, keep, processes

    def saved(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("[0-9]*") if path.suffix == "" and path.is_dir())

    def save(self, samples: int, state: State) -> None:
        """Write beside, then rename; drop the oldest. Every process must come here."""
        tensors = _flat(state)
        unfinished = self.folder / f"{samples:012d}.unfinished"
        if self.processes.rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        self.processes.wait()
        writer = dcp.HuggingFaceStorageWriter(str(unfinished), _file_of_each(tensors), save_distributed=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that there is but one process, which we know
            dcp.save(tensors, storage_writer=writer)
        if self.processes.rank == 0:
            self._finish(unfinished, self.folder / f"{samples:012d}")

    def _finish(self, unfinished: Path, target: Path) -> None:
        with (unfinished / INDEX).open("w", encoding="utf-8") as file:
            json.dump(_sizes(unfinished), file)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        for old in self.saved()[: -self.keep]:
            shutil.rmtree(old)

    def load(self, state: State) -> int:
        """Read the last checkpoint into the tensors of `state`, in place; the samples that it had seen. Every process
        must come here.

        Raises:
            TimeloomError: it is damaged, or has other tensors.
        """
        last = self.saved()[-1]
        if (last / "state.pt").exists():
            raise TimeloomError(f"{last} is of an older Timeloom; finish its run with the version that began it.")
        try:
            if json.loads((last / INDEX).read_text(encoding="utf-8")) != _sizes(last):
                raise TimeloomError(f"its files are not those that {INDEX} counts")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                dcp.load(_flat(state), storage_reader=dcp.HuggingFaceStorageReader(str(last)))
        except (CheckpointException, TimeloomError, OSError, ValueError) as error:
            reason = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
            raise TimeloomError(f"{last} cannot be read ({reason}); remove it to go on from the one before.") from error
        return int(last.name)


def _flat(state: State) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor.detach() for part, tensors in state.items() for name, tensor in tensors.items()}


def _file_of_each(tensors: dict[str, Tensor]) -> dict[str, int]:
    """The number of the file that each tensor goes to, the same on every process."""
    numbers, before = {}, 0
    for name, tensor in tensors.items():
        numbers[name] = 1 + before // FILE_BYTES
        before += tensor.numel() * tensor.element_size()
    return numbers


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of tensors."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))}
