"""Reading pickles that hold arrays and nothing else, because a pickle can run any program."""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from core.runtime.errors import UserError
from domains.graph.data.records import Matrix


class SparseState:
    """Stands in for a sparse matrix until its parts have been checked."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    _shape: tuple[int, int]


def _matrix(state: SparseState) -> Matrix:
    """The matrix, with every index checked."""
    shape = tuple(int(size) for size in state._shape)
    matrix = sparse.csr_matrix((state.data, state.indices, state.indptr), shape=shape)
    matrix.check_format(full_check=True)
    return matrix


_reconstruct = np.ndarray(0).__reduce__()[0]
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("scipy.sparse.csr", "csr_matrix"): SparseState,
    ("scipy.sparse._csr", "csr_matrix"): SparseState,
    ("collections", "defaultdict"): defaultdict,
    ("__builtin__", "list"): list,
    ("builtins", "list"): list,
    ("__builtin__", "int"): int,
    ("builtins", "int"): int,
}


class _ArraysOnly(pickle.Unpickler):
    def __init__(self, data: bytes, place: Path | str) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.place = place

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise UserError(
                f"{self.place}: the pickle asks for '{module}.{name}'; only numpy arrays, scipy "
                "csr matrices, "
                "dicts and lists are read; do not trust this file"
            )
        return ALLOWED[module, name]


def unpickle(data: bytes, place: Path | str) -> Any:
    """The array, csr matrix or dict in a pickle.

    Raises:
        UserError: If the pickle asks for anything else, or is damaged.
    """
    try:
        value = _ArraysOnly(data, place).load()
        if isinstance(value, np.ndarray) and value.dtype == object and value.shape == ():
            value = value.item()
        return _matrix(value) if isinstance(value, SparseState) else value
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        OverflowError,
        MemoryError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{place}: not a readable pickle ({reason}); download the file again"
        ) from error
