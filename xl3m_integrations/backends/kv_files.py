"""Keys and values in files, which hold more than memory and outlive the process.

One safetensors file per block, named by a hash of all that it depends on: model, versions and token ids. So threads and
processes share a folder without asking each other. A file appears whole, by a rename, or not at all. It says what it is
and holds a checksum, so that one that is not what it should be is computed again; that goes for what a power failure
leaves too, so nothing waits for the disk (fsync).

It pays where a token's bytes (see `kv_cache`) are read and checked, at about 1 GB/s on one core, in less time than
computing them takes: so for models on a CPU; hardly for a large one on a fast GPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
import time
import warnings
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from transformers import __version__ as transformers_version

from xl3m_integrations.backends.kv_blocks import Key, KVBlock
from xl3m_integrations.errors import CacheError, SettingError
from xl3m_integrations.writing import UNFINISHED, replacing

VERSION = "2"  # to be raised whenever files come to mean something else, so that old ones are not used
ABANDONED_SECONDS = 3_600.0  # after which an unfinished file is taken for one of a process that was killed
_OURS = re.compile(r"xl3m-kv-[0-9a-f]{64}\.safetensors")


class KVFiles:
    """The files of a folder that hold blocks, within a limit; the least recently used go out. Threads may share it.

    As in memory (`KVCache`), a file that was written or read in this pass over a document or in the one before is not
    put out for another. Files are told by their names; all others in the folder are left alone.

    Args:
        folder: Where they are; made where there is none. What it holds tells as much as the documents do.
        fingerprint: Of the model, its tokenizer and template.
        max_bytes: Of all such files in the folder, whoever wrote them; None sets no limit. What several processes write
            at the same moment may exceed it by a file each, until the next is written.

    Raises:
        SettingError: The limit is negative.
        CacheError: The folder cannot be made, or cannot be written to.
    """

    def __init__(self, folder: str | Path, fingerprint: str, max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes < 0:
            raise SettingError(f"cache_dir_bytes is {max_bytes}; it must be at least 0, or None for no limit.")
        self.folder = Path(folder).absolute()
        self.max_bytes = max_bytes
        # What the numbers of a layer mean is the affair of transformers.
        self._model = {"version": VERSION, "transformers": transformers_version, "fingerprint": fingerprint}
        self._before = self._begun = time.time_ns()  # when the last pass but one, and the last, began
        self._full = False  # of files that must stay in this pass
        self._lock = threading.Lock()
        with self._explained("kept in"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clean()
            tempfile.TemporaryFile(dir=self.folder).close()  # refused before any work is done

    def begin(self) -> None:
        """Say that a new pass begins."""
        with self._lock:
            self._before, self._begun = self._begun, time.time_ns()
            self._full = False

    def get(self, key: Key, device: torch.device | str) -> KVBlock | None:
        """The block of these rows on a device, if there is a file of it. One that cannot be used is deleted.

        Raises:
            CacheError: The file is there but cannot be read.
        """
        about = self._about(key)
        path = self._path(about)
        with self._explained("read from"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            tensors = _tensors_of(data, about)
        except ValueError as why:
            with suppress(OSError):
                path.unlink()
            warnings.warn(f"{path} is not used, and is computed again: {why}.", stacklevel=2)
            return None
        with suppress(OSError):  # deleted meanwhile, or somebody else's
            _touch(path)
        return _block_of(tensors, device)

    def put(self, key: Key, block: KVBlock) -> None:
        """Write a block's file, unless it is there already, or what is in use leaves no room within the limit.

        Raises:
            CacheError: It cannot be written. Nothing is left of it, and the files that are there stay as they are.
        """
        about = self._about(key)
        path = self._path(about)
        with self._explained("written to"):
            if self._full or path.exists():
                return
            tensors = _named(block)
            data = save(tensors, {**about, "sha256": _digest(about, tensors)})
            with self._lock:
                self._full = not self._make_room(len(data))
                if not self._full:
                    _write(path, data)

    def _about(self, key: Key) -> dict[str, str]:
        """What a block depends on."""
        tokens = len(key[0]) // array("i").itemsize
        return {**self._model, "tokens": str(tokens), "key": hashlib.sha256(b"".join(key)).hexdigest()}

    def _path(self, about: dict[str, str]) -> Path:
        return self.folder / f"xl3m-kv-{hashlib.sha256(json.dumps(about).encode()).hexdigest()}.safetensors"

    def _make_room(self, needed: int) -> bool:
        """Delete the least recently used files until so many bytes more are within the limit; whether they are."""
        if self.max_bytes is None or needed > self.max_bytes:
            return self.max_bytes is None
        files = self._files()
        held = sum(size for _, size, _ in files)
        for used, size, path in files:
            if held + needed <= self.max_bytes or used >= self._before:
                break
            path.unlink(missing_ok=True)
            held -= size
        return held + needed <= self.max_bytes

    def _files(self) -> list[tuple[int, int, Path]]:
        """When each file was last used (nanoseconds), its bytes, its path; the least recently used first."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process deleted it
                    if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        about = entry.stat(follow_symlinks=False)
                        found.append((about.st_mtime_ns, about.st_size, Path(entry.path)))
        return sorted(found)

    def _clean(self) -> None:
        """Delete what killed processes have left unfinished."""
        for path in self.folder.iterdir():
            unfinished = UNFINISHED.fullmatch(path.name)
            if unfinished is None or not _OURS.fullmatch(unfinished["name"]):
                continue
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                    path.unlink()

    @contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = "it is a file" if self.folder.is_file() else error.strerror or str(error)
            raise CacheError(
                f"Keys and values cannot be {done} {self.folder}: {reason}. What was written before can be used again. "
                "Check the folder's rights and the disk's free space (cache_dir_bytes= sets a limit), or give another "
                "cache_dir=."
            ) from error


def _named(block: KVBlock) -> dict[str, Tensor]:
    return {
        f"{layer}.{name}": tensor.cpu().contiguous()
        for layer, pair in enumerate(block.layers)
        for name, tensor in zip(("keys", "values"), pair, strict=True)
    }


def _block_of(tensors: dict[str, Tensor], device: torch.device | str) -> KVBlock:
    layers = range(len(tensors) // 2)
    return KVBlock(tuple((tensors[f"{n}.keys"].to(device), tensors[f"{n}.values"].to(device)) for n in layers))


def _tensors_of(data: bytes, about: dict[str, str]) -> dict[str, Tensor]:
    """The tensors of a file.

    Raises:
        ValueError: They are not those that were written for `about`.
    """
    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"it is no whole safetensors file ({error})") from error
    found = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    if any(found.get(name) != value for name, value in about.items()):
        raise ValueError("it is of another model, version or text")
    if found.get("sha256") != _digest(about, tensors):
        raise ValueError("it does not match its checksum")
    return tensors


def _digest(about: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the tensors' bytes, and of all that the header says of them."""
    digest = hashlib.sha256(json.dumps(about).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)
        _touch(unfinished)


def _touch(path: Path) -> None:
    # By this clock, since the file system's may lag behind the one that tells when a pass began.
    now = time.time_ns()
    os.utime(path, ns=(now, now))
