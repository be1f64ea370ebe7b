"""An array on the disk that grows by one example after the other and is never in memory whole."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import RunFailed


class GrowingArray:
    """A ``.npy`` file of ``uint8`` that stands in its place once all is written.

    The header is written first for no examples and again at the end for all; numpy leaves room
    for the number in it. A failure leaves whatever stood at the path.

    Args:
        path: Of the file.
        shape: Of one example.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with GrowingArray(Path(folder) / "a.npy", (2,)) as array:
        ...         array.append(np.ones((3, 2), np.uint8))
        ...     np.load(Path(folder) / "a.npy").shape
        (3, 2)
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self.count = 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> GrowingArray:
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        self._temporary, self._file = Path(name), os.fdopen(handle, "wb")
        self._write_header()
        self._start = self._file.tell()
        return self

    def append(self, examples: NDArray[np.uint8]) -> None:
        """Write some examples behind the others.

        Raises:
            RunFailed: If the disk is full.
        """
        if examples.shape[1:] != self.shape or examples.dtype != np.uint8:
            raise ValueError(f"{examples.dtype} of shape {examples.shape}, not {self.shape}")
        data = examples.tobytes()
        try:
            self._file.write(data)
        except OSError as error:
            raise RunFailed(f"{self.path}: cannot write: {error.strerror}") from error
        self._digest.update(data)
        self.count += len(examples)

    @property
    def sha256(self) -> str:
        """Of all examples, without the header."""
        return self._digest.hexdigest()

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as failed:
            raise RunFailed(f"{self.path}: cannot write: {failed.strerror}") from failed
        finally:
            self._file.close()
            self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        self._file.seek(0)
        self._write_header()
        assert self._file.tell() == self._start  # numpy leaves room for the number of examples
        self._file.flush()
        os.fsync(self._file.fileno())
        self._temporary.chmod(0o644)
        self._temporary.replace(self.path)
