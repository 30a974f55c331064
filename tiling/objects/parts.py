"""Parts of a measurement: whole numbers for each object, which add up over any partition, in any order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tiling.objects.hull import Hulls

Merge = Literal["sum", "min", "max", "or"]

_UFUNCS: dict[Merge, np.ufunc] = {"sum": np.add, "min": np.minimum, "max": np.maximum, "or": np.logical_or}


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One number for each object, and how two parts of an object become one."""

    name: str
    merge: Merge
    values: NDArray[Any]


def column(name: str, merge: Merge, values: NDArray[Any]) -> Column:
    """A column."""
    return Column(name, merge, values)


class Columns(Mapping[str, NDArray[Any]]):
    """Columns by name."""

    def __init__(self, columns: Iterable[Column] = ()) -> None:
        self._columns = {each.name: each for each in columns}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._columns[name].values

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def all(self) -> Iterable[Column]:
        """With how they merge."""
        return self._columns.values()

    def limbs(self, name: str) -> dict[int, NDArray[np.int64]]:
        """The limbs of a sum of floats."""
        begin = f"{name}@"
        return {int(each[len(begin) :]): self[each] for each in self if each.startswith(begin)}


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Part of objects in some pixels.

    Attributes:
        ids: ascending.
        columns: a value of each for each of them.
        hulls: of the same.
    """

    ids: NDArray[np.int32]
    columns: Columns
    hulls: Hulls

    def __len__(self) -> int:
        return self.ids.size

    @classmethod
    def joined(cls, parts: Iterable[Part]) -> Part:
        """Of several, of the same objects or of others."""
        some = [part for part in parts if len(part)]
        if len(some) == 1:
            return some[0]
        ids = np.concatenate([part.ids for part in some])
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        kinds = {each.name: each for part in some for each in part.columns.all()}
        columns = [
            Column(name, kind.merge, _UFUNCS[kind.merge].reduceat(_laid_out(some, kind)[order], first))
            for name, kind in kinds.items()
        ]
        return cls(ordered[first], Columns(columns), Hulls.joined(part.hulls for part in some))

    def split(self, wanted: NDArray[np.bool_]) -> tuple[Part, Part]:
        """Some of the objects, and the others."""
        chosen, others = self.hulls.split(self.ids[wanted])
        sides = ((wanted, chosen), (~wanted, others))
        one, two = (
            Part(
                self.ids[side],
                Columns(Column(each.name, each.merge, each.values[side]) for each in self.columns.all()),
                hulls,
            )
            for side, hulls in sides
        )
        return one, two


def _laid_out(parts: list[Part], kind: Column) -> NDArray[Any]:
    """A column of all parts one after another; of those without it, what adds nothing."""
    return np.concatenate(
        [
            part.columns[kind.name]
            if kind.name in part.columns
            else np.zeros((len(part), *kind.values.shape[1:]), kind.values.dtype)
            for part in parts
        ]
    )
