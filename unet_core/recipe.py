"""How a model is trained: one definition for the TOML file, the checkpoint and the card."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator

_CONFIG = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Magnification = Annotated[float, Field(ge=0.05, le=20)]


class Variation(BaseModel):
    """How the examples of one group are drawn and varied.

    Brightness terms are shares of the full scale; `gain` and `gamma` are the greatest absolute logarithms of
    the factor and the exponent. `elastic_px` bends crops: the deviation, in crop pixels, of the displacement
    vectors at 3 x 3 places of a crop, 10 in the U-Net paper. For stained tissue in red, green and blue: `stain`
    jitters the densities of haematoxylin, eosin and DAB, `hue` those of the three bands, and `counterstain` is
    the chance of added fibres and grounds in eosin to DAB between the foreground.
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

    @model_validator(mode="after")
    def _scale_ascends(self) -> Variation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale {self.scale} must be (least, greatest)")
        return self


class TrainingConfig(BaseModel):
    """One training. The rate warms up, stays, and falls to zero over the last `decay_share` of the steps.

    With such a trapezoid (Hu 2024, arXiv:2404.06395) a training can be made longer, and resumed, before its
    decay begins: everything up to there doesn't depend on `steps`.
    """

    model_config = _CONFIG

    steps: PositiveInt
    batch: PositiveInt = 8
    tile_px: PositiveInt = 256
    seed: Annotated[int, Field(ge=0)] = 0
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: NonNegativeFloat = 1e-2
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.3
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    loss: str = "dice_bce"
    loss_parameters: dict[str, Any] = Field(default_factory=dict)
    groups: Annotated[dict[str, Variation], Field(min_length=1)]
    validate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 100
    threads: PositiveInt | None = None

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
        """The step at which the learning rate begins to fall."""
        return int(self.steps * (1 - self.decay_share))

    def rate_at(self, step: int) -> float:
        """The learning rate of one step, counted from 0."""
        rising = min(1.0, (step + 1) / (self.warmup_steps + 1))
        falling = min(1.0, (self.steps - step) / (self.steps - self.decay_start))
        return self.learning_rate * rising * falling
