"""Recipe of a training: one definition for the TOML file, the checkpoint and the card."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator

_CONFIG = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Magnification = Annotated[float, Field(ge=0.05, le=20)]
Chance = Annotated[float, Field(ge=0, le=1, exclude_if=lambda chance: chance == 0)]
# Left out of what a checkpoint must agree on while it has no effect, so that trainings from before it continue.
Spread = Annotated[float, Field(ge=0, exclude_if=lambda spread: spread == 0)]


class Variation(BaseModel):
    """Variation of the examples of one group, and how they are drawn.

    Brightness terms are shares of the full scale; `gain` and `gamma` are the greatest absolute logarithms of
    the factor and the exponent. `elastic_px` bends crops: the deviation, in crop pixels, of the displacement
    vectors at 3 x 3 places of a crop, 10 in the U-Net paper. For stained tissue in red, green and blue: `stain`
    jitters the densities of haematoxylin, eosin and DAB, `hue` those of the three bands, and `counterstain` is
    the chance of added fibres and grounds in eosin to DAB between the foreground, `wash` that of one such colour
    over all of the crop, and `clutter` that of pen, red cells or holes. For any kind: `band_gain` and `band_gamma`
    vary the brightness of each band on its own, `turn_hue` turns colours about grey by up to so many degrees;
    `grey` and `invert` are the chances of a picture without colours and of a negative, and a third of the crops
    are brought down to a JPEG of quality `jpeg` at worst. `plain` is the chance of a crop that is turned and
    mirrored alone.
    """

    model_config = _CONFIG

    share: Annotated[float, Field(gt=0)] = 1.0
    scale: tuple[Magnification, Magnification] = (1.0, 1.0)
    rotate: bool = True
    elastic_px: NonNegativeFloat = 0.0
    gain: NonNegativeFloat = 0.0
    offset: NonNegativeFloat = 0.0
    gamma: NonNegativeFloat = 0.0
    stain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    hue: Annotated[float, Field(ge=0, lt=1)] = 0.0
    counterstain: Annotated[float, Field(ge=0, le=1)] = 0.0
    blur_px: Annotated[float, Field(ge=0, le=8)] = 0.0
    sharpen: NonNegativeFloat = 0.0
    noise: NonNegativeFloat = 0.0
    wash: Chance = 0.0
    clutter: Chance = 0.0
    band_gain: Spread = 0.0
    band_gamma: Spread = 0.0
    turn_hue: Annotated[float, Field(ge=0, le=180, exclude_if=lambda degrees: degrees == 0)] = 0.0
    grey: Chance = 0.0
    invert: Chance = 0.0
    jpeg: Annotated[int | None, Field(ge=1, le=100, exclude_if=lambda quality: quality is None)] = None
    plain: Chance = 0.0

    @model_validator(mode="after")
    def _scale_ascends(self) -> Variation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale {self.scale} must be (least, greatest)")
        return self


class BorderWeights(BaseModel):
    """The border-weight map's w0 and sigma (in px), and whether it balances the classes, see `training.border`."""

    model_config = _CONFIG

    w0: NonNegativeFloat = 10.0
    sigma: Annotated[float, Field(gt=0, le=100)] = 5.0
    balance: bool = False


class Separation(BaseModel):
    """Separation of objects by borders, in px of a crop: `unet_core.training.separation.separated`."""

    model_config = _CONFIG

    outline_px: Annotated[int, Field(ge=0, le=16)] = 1
    touching_px: Annotated[int, Field(ge=0, le=16)] = 2

    @model_validator(mode="after")
    def _has_borders(self) -> Separation:
        if not (self.outline_px or self.touching_px):
            raise ValueError("outline_px and touching_px are both 0: there would be no border; make one of them 1")
        return self


class TrainingConfig(BaseModel):
    """One training.

    `batch` crops make one step of the optimizer; they are split evenly over the processes, and by each over
    `accumulate` passes. `weight_decay` is decoupled with `adamw` (Loshchilov and Hutter 2019) and an L2 term of
    the loss with `adam` and `sgd`. After warming up the rate follows the `schedule`: it stays (`constant`), falls
    along a `cosine` (Loshchilov and Hutter 2017), or stays and falls to zero over the last `decay_share` of the
    steps (`trapezoid`, Hu 2024, arXiv:2404.06395). A training can be made longer, and resumed, as long as no
    rate of a step already done depends on `steps`.

    `head_weights` are those of a deeply supervised network's heads, in the order of its `supervised`, equal by
    default; `guidance` weighs UNet 3+'s classification. `border` weighs pixels by their examples' instances.
    `separate` makes two classes of numbered objects: 1 their interiors, 2 their borders, so that objects that touch
    can be told apart. `start` is the folder of a bundle whose weights the training begins with.
    The training ends early where `patience` validations in a row bring no better mean IoU.
    """

    model_config = _CONFIG

    steps: PositiveInt
    batch: PositiveInt = 8
    accumulate: PositiveInt = 1
    tile_px: PositiveInt = 256
    seed: Annotated[int, Field(ge=0)] = 0
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    weight_decay: NonNegativeFloat = 1e-2
    schedule: Literal["trapezoid", "cosine", "constant"] = "trapezoid"
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.3
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    loss: str = "dice_bce"
    loss_parameters: dict[str, Any] = Field(default_factory=dict)
    head_weights: tuple[Annotated[float, Field(gt=0)], ...] = ()
    guidance: NonNegativeFloat = 1.0
    border: BorderWeights | None = None
    separate: Annotated[Separation | None, Field(exclude_if=lambda separation: separation is None)] = None
    start: Annotated[Path | None, Field(exclude_if=lambda start: start is None)] = None
    groups: Annotated[dict[str, Variation], Field(min_length=1)]
    validate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 100
    patience: PositiveInt | None = None
    threads: PositiveInt | None = None
    loaders: Annotated[int, Field(ge=0, le=64)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _crops_do_not_fold(self) -> TrainingConfig:
        for name, variation in self.groups.items():
            if variation.elastic_px > self.tile_px / 10:
                raise ValueError(
                    f"groups.{name}.elastic_px {variation.elastic_px:g} is more than a tenth of tile_px "
                    f"{self.tile_px}: crops would fold over themselves; use {self.tile_px / 10:g} or less"
                )
        return self

    @property
    def decay_start(self) -> int:
        """The step at which a trapezoid's learning rate begins to fall."""
        return int(self.steps * (1 - self.decay_share))

    def rate_at(self, step: int) -> float:
        """The learning rate of one step, counted from 0."""
        rising = min(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.learning_rate * rising * self._share_at(step)

    def _share_at(self, step: int) -> float:
        if self.schedule == "trapezoid":
            return min(1.0, (self.steps - step) / (self.steps - self.decay_start))
        if self.schedule == "cosine":
            done = max(0, step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
            return (1 + math.cos(math.pi * min(1.0, done))) / 2
        return 1.0
