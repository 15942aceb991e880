from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

def isa() -> str: ...
def build_info() -> dict[str, Any]: ...
def cuda_info() -> dict[str, Any]: ...
def pareto_rank(F: ArrayLike, maximize: bool | Sequence[bool] | None = None) -> NDArray[np.int32]: ...
def pareto_crowding_distance(F: ArrayLike, ranks: ArrayLike | None = None) -> NDArray[np.float64]: ...

class ParetoFront:
    def __init__(self, n_objectives: int, maximize: bool | Sequence[bool] | None = None) -> None: ...
    def insert(self, f: ArrayLike) -> int: ...
    def update(self, index: int, f: ArrayLike) -> int: ...
    def rank(self, index: int) -> int: ...
    def members(self, rank: int) -> NDArray[np.int32]: ...
    @property
    def ranks(self) -> NDArray[np.int32]: ...
    def __len__(self) -> int: ...

_Tensor4 = tuple[int, tuple[int, ...]]
_Run = tuple[int, int, int, bool]  # device, stream, workspace, portable variant only

def linear_attention_forward(
    dtype: str,
    causal: bool,
    eps: float,
    threads: int,
    sizes: tuple[int, ...],
    q: _Tensor4,
    k: _Tensor4,
    v: _Tensor4,
    weights: tuple[int, int, int, int],
    initial: tuple[int, int],
    out: _Tensor4,
    final: tuple[int, int],
) -> None: ...
def linear_attention_backward(
    dtype: str,
    causal: bool,
    eps: float,
    threads: int,
    sizes: tuple[int, ...],
    q: _Tensor4,
    k: _Tensor4,
    v: _Tensor4,
    weights: tuple[int, int, int, int],
    initial: tuple[int, int],
    out: _Tensor4,
    grad_out: _Tensor4,
    grad_final: tuple[int, int],
    grad_q: _Tensor4,
    grad_k: _Tensor4,
    grad_v: _Tensor4,
    grad_weights: tuple[int, int],
    grad_initial: tuple[int, int],
) -> None: ...
def linear_attention_step(
    dtype: str,
    eps: float,
    threads: int,
    sizes: tuple[int, ...],
    addresses: tuple[int, int, int, int],
    q_strides: tuple[int, ...],
    k_strides: tuple[int, ...],
    v_strides: tuple[int, ...],
    weights: tuple[int, int, int, int],
    initial: tuple[int, int],
    final: tuple[int, int],
) -> None: ...
def cuda_kernels() -> list[dict[str, Any]]: ...
def cuda_architectures() -> list[str]: ...
def linear_attention_cuda_unsupported(dtype: str, sizes: tuple[int, ...], device: int) -> str: ...
def linear_attention_cuda_workspace(
    dtype: str, run: _Run, sizes: tuple[int, ...], mapped: bool, backward: bool
) -> int: ...
def linear_attention_cuda_forward(
    dtype: str,
    causal: bool,
    eps: float,
    run: _Run,
    sizes: tuple[int, ...],
    q: _Tensor4,
    k: _Tensor4,
    v: _Tensor4,
    weights: tuple[int, int, int, int],
    initial: tuple[int, int],
    out: _Tensor4,
    final: tuple[int, int],
) -> None: ...
def linear_attention_cuda_backward(
    dtype: str,
    causal: bool,
    eps: float,
    run: _Run,
    sizes: tuple[int, ...],
    q: _Tensor4,
    k: _Tensor4,
    v: _Tensor4,
    weights: tuple[int, int, int, int],
    initial: tuple[int, int],
    out: _Tensor4,
    grad_out: _Tensor4,
    grad_final: tuple[int, int],
    grad_q: _Tensor4,
    grad_k: _Tensor4,
    grad_v: _Tensor4,
    grad_weights: tuple[int, int],
    grad_initial: tuple[int, int],
) -> None: ...
def linear_attention_cuda_step(
    dtype: str,
    eps: float,
    run: _Run,
    sizes: tuple[int, ...],
    q: _Tensor4,
    k: _Tensor4,
    v: _Tensor4,
    weights: tuple[int, int, int, int],
    initial: tuple[int, int],
    out: _Tensor4,
    final: tuple[int, int],
) -> None: ...
