"""Flags of a slide: why a person should look at it, from its measures and those of the archive's other slides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
_LEAST_SPREAD = 0.05


@dataclass(frozen=True, slots=True)
class Usual:
    """Usual density in an archive: middle and spread of the logarithm of objects per area.

    >>> usual = Usual.of([90, 100, 110, 95, 105, 100, 98, 102])
    >>> usual.z_score(100) < 1, usual.z_score(1) < -3.5, usual.z_score(5000) > 3.5
    (True, True, True)
    """

    middle: float
    spread: float

    @classmethod
    def of(cls, densities: Sequence[float]) -> Usual | None:
        """None where there are too few slides to know."""
        if len(densities) < FEWEST_PEERS:
            return None
        values = [math.log1p(density) for density in densities]
        middle = median(values)
        deviation = median(abs(value - middle) for value in values)
        return cls(middle, max(1.4826 * deviation, _LEAST_SPREAD))

    def z_score(self, density: float) -> float:
        """Number of spreads from the middle."""
        return (math.log1p(density) - self.middle) / self.spread


def flags_of(record: SlideRecord, usual: Usual | None) -> tuple[str, ...]:
    """Flags of one slide that has a mask, the gravest first; none where nothing was measured."""
    found = record.measures
    if not found or record.state not in {SlideState.DONE, SlideState.FAILED}:
        return ()
    seen = _seen(found)
    objects = () if seen in {("black",), ("blank",)} else _objects(found, usual)
    return (*seen, *objects, *_scale(found), *_lost(found))


def flags_by_slide(records: Iterable[SlideRecord]) -> dict[str, tuple[str, ...]]:
    """Flags of all slides that have any, in order of their names."""
    known = sorted(records, key=lambda record: record.slide)
    done = [record for record in known if record.state is SlideState.DONE]
    densities = [density for record in done if (density := density_of(record.measures)) is not None]
    usual = Usual.of(densities)
    flagged = {record.slide: flags_of(record, usual) for record in known}
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


def _objects(found: Mapping[str, object], usual: Usual | None) -> tuple[str, ...]:
    if found.get("objects") == 0:
        return ("no object",)
    density, specks = density_of(found), _number(found, "specks")
    far = usual.z_score(density) if usual is not None and density is not None else 0.0
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


def _lost(found: Mapping[str, object]) -> tuple[str, ...]:
    failed, without = _number(found, "missing") or 0.0, _number(found, "no_data") or 0.0
    lost = (f"{failed:.0%} of its tiles failed",) if failed > TENTH else ()
    return (*lost, *((f"{without:.0%} holds no data",) if without > TENTH else ()))


def _number(found: Mapping[str, object], name: str) -> float | None:
    value = found.get(name)
    return float(value) if isinstance(value, int | float) else None
