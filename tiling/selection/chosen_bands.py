"""Choice of bands: those of the file by number or name, or computed of them by formulas."""

from __future__ import annotations

from collections.abc import Sequence

from tiling.errors import PlanError, SourceError
from tiling.source import ImageSource
from tiling.sources.formula import by_number, is_formula
from tiling.view import Formula


def parse_bands(source: ImageSource, text: str | None) -> tuple[tuple[int, ...] | None, tuple[Formula, ...]]:
    """Numbers of the bands that were named, from 0, None where those are all of them in their order; or formulas.

    A number counts from 1, alpha channels after all others; where a band is named like a number, its name wins. Where
    one of them is a formula, all are: a plain name is its band's value.

    Raises:
        SourceError: there is no such band.
        PlanError: a formula can't be read.
    """
    if text is None:
        return None, ()
    names = [name.casefold() for name in (*source.bands, *source.alpha)]
    parts = [part.strip() for part in text.split(",")]
    plain = [
        None if is_formula(part) and part.casefold() not in names else _band(source, names, part) for part in parts
    ]
    chosen = tuple(band for band in plain if band is not None)
    if len(chosen) == len(parts):
        return (None if chosen == tuple(range(len(source.bands))) else chosen), ()
    numbers = {name.casefold(): number for number, name in enumerate(source.bands)}
    return None, tuple(
        Formula(name=part, text=by_number(part, numbers)) if band is None else _own(source, band)
        for part, band in zip(parts, plain, strict=True)
    )


def scaled_bands(source: ImageSource, bands: tuple[int, ...] | None) -> tuple[Formula, ...]:
    """Bands of a file in their own units.

    Raises:
        PlanError: the file doesn't say what they are.
    """
    if not source.scales:
        raise PlanError(
            f"{source.path} says neither scale nor offset of its bands, without which --scaled would change nothing; "
            "leave it out"
        )
    return tuple(_own(source, band) for band in (bands if bands is not None else range(len(source.bands))))


def scales_told(source: ImageSource, formulas: Sequence[Formula]) -> dict[str, str]:
    """Notes on scales that formulas apply."""
    if not formulas or not source.scales:
        return {}
    clauses = [
        f"{name} = stored x {scale:.6g} {offset:+.6g}"
        for name, (scale, offset) in zip(source.bands, source.scales, strict=True)
    ]
    listed = ", ".join(dict.fromkeys(clauses[:6])) + (" …" if len(clauses) > 6 else "")
    return {"values": f"in the bands' own units, as the image says: {listed}"}


def _own(source: ImageSource, band: int) -> Formula:
    names = (*source.bands, *source.alpha)
    if band >= len(source.bands):
        raise PlanError(f"{names[band]!r} is an alpha channel, of which no formula is made; leave it out of --bands")
    return Formula(name=names[band], text=f"b{band + 1}")


def _band(source: ImageSource, names: Sequence[str], part: str) -> int:
    wanted = part.casefold()
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    raise SourceError(
        f"{source.path} has no band {wanted!r}; give --bands with numbers from 1 to {len(names)} or names of "
        f"{', '.join((*source.bands, *source.alpha))}"
    )
