"""A door to a real solver for linear programs (HiGHS, through scipy), which the product itself does not need."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from ...errors import ConfigurationError


@dataclass(slots=True)
class Rows:
    """Constraints `sum of coefficient x variable <= limit`, sparse."""

    count: int
    indices: list[tuple[int, int]]
    """(row, column) of each coefficient."""
    coefficients: list[float]
    limits: list[float]

    @classmethod
    def none(cls) -> Rows:
        return cls(0, [], [], [])

    def add(self, columns: Sequence[int], coefficients: Sequence[float], limit: float) -> None:
        self.indices.extend((self.count, column) for column in columns)
        self.coefficients.extend(coefficients)
        self.limits.append(limit)
        self.count += 1


class _Outcome(Protocol):
    success: bool
    message: str
    fun: float
    x: Sequence[float]


class _Optimize(Protocol):
    def linprog(
        self,
        c: Sequence[float],
        *,
        A_ub: object,
        b_ub: Sequence[float],
        bounds: Sequence[tuple[float, float | None]],
        method: str,
    ) -> _Outcome: ...


class _Sparse(Protocol):
    def csr_matrix(self, entries: object, shape: tuple[int, int]) -> object: ...


@dataclass(frozen=True, slots=True)
class Solution:
    value: float
    variables: Sequence[float]


def minimise(costs: Sequence[float], rows: Rows, bounds: Sequence[tuple[float, float | None]]) -> Solution:
    """The least `sum of cost x variable` under the rows and the bounds of each variable.

    Raises `ConfigurationError` where scipy is not installed, `ArithmeticError` if the solver finds no optimum.
    """
    try:
        optimize = cast(_Optimize, importlib.import_module("scipy.optimize"))
        sparse = cast(_Sparse, importlib.import_module("scipy.sparse"))
    except ImportError as error:
        raise ConfigurationError(
            "exact bounds need a solver, and scipy is not installed", hint="pip install scipy, or leave the exact bounds out"
        ) from error
    row_of, column_of = [row for row, _ in rows.indices], [column for _, column in rows.indices]
    matrix = sparse.csr_matrix((rows.coefficients, (row_of, column_of)), (rows.count, len(costs)))
    outcome = optimize.linprog(costs, A_ub=matrix, b_ub=rows.limits, bounds=bounds, method="highs")
    if not outcome.success:
        raise ArithmeticError(f"the solver found no optimum: {outcome.message}")
    return Solution(float(outcome.fun), outcome.x)
