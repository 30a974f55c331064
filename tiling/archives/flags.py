"""Flags of a slide: why a person should look at it, from its measures and those of the archive's other slides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from tiling.archives.slide_record import SlideRecord, SlideState

FAR = 3.5
"""Of the robust z-score; Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993."""
FEWEST_PEERS = 8
"""Slides without which nothing is known of what is usual in an archive."""
BLACK, WHITE, FLAT = 0.03, 0.9, 0.02
"""Shares of the largest value: mean brightness below and above which, and contrast below which, nothing is seen."""
BLURRED = 0.004
"""Of the sharpness: real tissue has 0.2 to 0.35, and this once blurred by a Gaussian of 2 to 3 px."""
TENTH = 0.1
SCALE = 1.25
"""How far, as a factor, the pixel size may be from the model's."""
MOST = 0.5
LEAST_OF_DENSITY, LEAST_OF_KEPT, LEAST_OF_NO_DATA = 0.05, 0.3, TENTH / FAR
"""Least spreads, for archives whose slides are all alike: of the logarithms of objects per area and of the share of
tiles that is kept, and of the share without data, of which less than a tenth more than usual is never far."""


@dataclass(frozen=True, slots=True)
class Usual:
    """Usual value of a measure in an archive: middle and robust spread.

    >>> usual = Usual.of([90, 100, 110, 95, 105, 100, 98, 102], 1.0)
    >>> usual.z_score(100) < 1, usual.z_score(1) < -3.5, usual.z_score(5000) > 3.5
    (True, True, True)
    """

    middle: float
    spread: float

    @classmethod
    def of(cls, values: Sequence[float], least_spread: float) -> Usual | None:
        """None where there are too few slides to know."""
        if len(values) < FEWEST_PEERS:
            return None
        middle = median(values)
        deviation = median(abs(value - middle) for value in values)
        return cls(middle, max(1.4826 * deviation, least_spread))

    def z_score(self, value: float) -> float:
        """Number of spreads from the middle."""
        return (value - self.middle) / self.spread


@dataclass(frozen=True, slots=True)
class Peers:
    """Usual measures of an archive's slides that are done; None where too few have one.

    Attributes:
        density: logarithm of objects per area, by the area's unit: one per mm² is not one per million pixels.
        kept: logarithm of the share of tiles that isn't skipped as background. no_data: share without data.
    """

    density: Mapping[str, Usual | None] = field(default_factory=dict[str, "Usual | None"])
    kept: Usual | None = None
    no_data: Usual | None = None

    @classmethod
    def of(cls, measures: Sequence[Mapping[str, object]]) -> Peers:
        densities: dict[str, list[float]] = {}
        for found in measures:
            if (density := density_of(found)) is not None:
                densities.setdefault(_unit(found), []).append(math.log1p(density))
        return cls(
            {unit: Usual.of(values, LEAST_OF_DENSITY) for unit, values in densities.items()},
            Usual.of([share for each in measures if (share := _kept(each)) is not None], LEAST_OF_KEPT),
            Usual.of([share for each in measures if (share := _number(each, "no_data")) is not None], LEAST_OF_NO_DATA),
        )

    def density_score(self, found: Mapping[str, object]) -> float:
        density, usual = density_of(found), self.density.get(_unit(found))
        return usual.z_score(math.log1p(density)) if usual is not None and density is not None else 0.0

    def kept_score(self, found: Mapping[str, object]) -> float:
        kept = _kept(found)
        return self.kept.z_score(kept) if self.kept is not None and kept is not None else 0.0

    def no_data_score(self, share: float) -> float:
        return self.no_data.z_score(share) if self.no_data is not None else 0.0


def flags_of(record: SlideRecord, peers: Peers) -> tuple[str, ...]:
    """Flags of one slide that has a mask, the gravest first; none where nothing was measured."""
    found = record.measures
    if not found or record.state not in {SlideState.DONE, SlideState.FAILED}:
        return ()
    seen = _seen(found)
    objects = () if seen in {("black",), ("blank",)} else (*_objects(found, peers), *_skipped(found, peers))
    return (*seen, *objects, *_scale(found), *_lost(found, peers))


def flags_by_slide(records: Iterable[SlideRecord]) -> dict[str, tuple[str, ...]]:
    """Flags of all slides that have any, in order of their names."""
    known = sorted(records, key=lambda record: record.slide)
    done = [record for record in known if record.state is SlideState.DONE]
    peers = Peers.of([record.measures for record in done])
    flagged = {record.slide: flags_of(record, peers) for record in known}
    return {slide: flags for slide, flags in flagged.items() if flags}


def density_of(found: Mapping[str, object]) -> float | None:
    """Objects per area of tissue, in mm² or km², or per million pixels; None where they weren't counted."""
    objects, area = found.get("objects"), found.get("tissue_area")
    if not isinstance(objects, int) or not isinstance(area, int | float) or not area:
        return None
    return objects / area * (1e6 if found.get("unit") == "px" else 1.0)


def _seen(found: Mapping[str, object]) -> tuple[str, ...]:
    brightness, contrast, sharp = (_number(found, name) for name in ("brightness", "contrast", "sharpness"))
    if brightness is not None and contrast is not None and contrast < FLAT:
        if brightness < BLACK:
            return ("black",)
        if sharp is None or brightness > WHITE:
            return ("blank",)
    return ("out of focus",) if sharp is not None and sharp < BLURRED else ()


def _objects(found: Mapping[str, object], peers: Peers) -> tuple[str, ...]:
    if found.get("objects") == 0:
        return ("no object",)
    far, specks = peers.density_score(found), _number(found, "specks")
    side = (
        "far more objects than the others" if far > FAR else "far fewer objects than the others" if far < -FAR else ""
    )
    most = specks is not None and specks > MOST
    return (*([side] if side else []), *(["most objects are specks"] if most else []))


def _scale(found: Mapping[str, object]) -> tuple[str, ...]:
    scale, wanted = _number(found, "scale"), _number(found, "wanted_um")
    if wanted is None:
        return ()
    if scale is None:
        return ("pixel size unknown",)
    far = max(scale, 1 / scale) > SCALE
    return (f"pixel size {scale:.3g} times the model's",) if far else ()


def _skipped(found: Mapping[str, object], peers: Peers) -> tuple[str, ...]:
    """Background that is skipped is normal; a share of it that the archive's others don't have may be lost tissue."""
    skipped = _number(found, "skipped") or 0.0
    is_far = skipped > TENTH and peers.kept_score(found) < -FAR
    return (f"{_percent(skipped)} of its tiles skipped, far more than of the others",) if is_far else ()


def _lost(found: Mapping[str, object], peers: Peers) -> tuple[str, ...]:
    """Failed tiles, and pixels without data: those of a scene's collar or of what was never scanned are usual."""
    failed, without = _number(found, "missing") or 0.0, _number(found, "no_data") or 0.0
    damaged, is_far = _number(found, "damaged") or 0.0, peers.no_data_score(without) > FAR
    lost = (f"{_percent(failed)} of its tiles failed",) if failed > TENTH else ()
    if without > TENTH and damaged:
        return (*lost, f"{_percent(without)} holds no data, and parts of the file don't decode")
    return (*lost, *((f"{_percent(without)} holds no data, far more than of the others",) if is_far else ()))


def _kept(found: Mapping[str, object]) -> float | None:
    """Logarithm of the share of tiles that isn't skipped."""
    skipped = _number(found, "skipped")
    return None if skipped is None else math.log(max(1.0 - skipped, 1e-4))


def _unit(found: Mapping[str, object]) -> str:
    return str(found.get("unit"))


def _percent(share: float) -> str:
    """A share that isn't said to be everything where something is left."""
    return f"{share:.0%}" if share < 0.995 or share == 1 else f"{share:.1%}"


def _number(found: Mapping[str, object], name: str) -> float | None:
    value = found.get(name)
    return float(value) if isinstance(value, int | float) else None
