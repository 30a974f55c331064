"""Training a network on examples: resumable at any step, with the same result as if never interrupted.

Everything random in a step follows from the seed and the step's number, so a resumed training draws the very
crops that an undisturbed one would have drawn.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import nn

from unet_core.augmentation import CropSampler
from unet_core.bounds import footprint
from unet_core.bundle import save_bundle
from unet_core.card import ModelCard
from unet_core.data import Annotated, check_examples, check_measurable, count_groups
from unet_core.errors import TrainingError
from unet_core.evaluation import evaluate, normalized
from unet_core.losses import build_loss, one_hot_targets
from unet_core.models import build
from unet_core.recipe import TrainingConfig

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "checkpoint.pt"
BUNDLE_NAME = "bundle"
_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
# What a resumed training may change: none of these alters a step that is already done.
_FREE_FIELDS = {"steps", "validate_every", "checkpoint_every", "threads"}
_LABEL_FIELDS = {"architecture", "parameters", "bands", "dtype", "classes", "decision", "normalization"}


@dataclass(slots=True)
class Progress:
    """How far a training is. `history` holds one entry per validation."""

    step: int = 0
    best_iou: float = -1.0
    best_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """One training: its network, optimizer, running weight average and folder.

    The folder gets `checkpoint.pt`, which continues it, and `bundle/`: the averaged weights with the best
    mean foreground IoU on the validation examples so far, with the measured figures on its card. Raises
    TrainingError for examples that don't fit the card, or for a folder that holds a different training.
    """

    def __init__(
        self,
        config: TrainingConfig,
        card: ModelCard,
        training: Sequence[Annotated],
        validation: Sequence[Annotated],
        folder: Path,
    ) -> None:
        check_examples(training, card)
        check_examples(validation, card)
        check_measurable(validation)
        self.config, self.card, self.folder = config, card, folder
        self.training, self.validation = training, validation
        self.sampler = CropSampler(config, training, _FULL_SCALE[card.dtype])
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        network = build(card.architecture, card.parameters)
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.average = build(card.architecture, card.parameters).eval()
        self.average.load_state_dict(self.network.state_dict())
        self.stride = _stride(self.average, config.tile_px, len(card.bands))
        self.loss = build_loss(config.loss, config.loss_parameters)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.progress = Progress()
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT_NAME).exists():
            self._restore()

    def run(self, until: int | None = None) -> Progress:
        """Train up to step `until` (default: to the end), then return how it went.

        Raises TrainingError where the loss or a gradient is not finite; the last checkpoint stays as it was.
        """
        last = self.config.steps if until is None else min(until, self.config.steps)
        clock, first, losses = time.monotonic(), self.progress.step, list[float]()
        while self.progress.step < last:
            losses.append(self._step())
            step = self.progress.step
            due = step == self.config.steps
            if due or step % self.config.validate_every == 0:
                self._validate()
            if due or step == last or step % self.config.checkpoint_every == 0:
                self._save()
                rate = (step - first) / (time.monotonic() - clock)
                minutes = (self.config.steps - step) / rate / 60
                logger.info(
                    "step %d of %d, loss %.4f, %.2f steps/s, %.1f min left",
                    step, self.config.steps, float(np.mean(losses)), rate, minutes,
                )  # fmt: skip
                losses.clear()
        return self.progress

    def _step(self) -> float:
        """One step of the optimizer; the batch is a function of the seed and the step's number."""
        config, step = self.config, self.progress.step
        crops = self.sampler.batch(step)
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate_at(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
            logits_NCHW = self.network(normalized(crops.image_NHW, self.card.normalization))
        targets_NCHW = one_hot_targets(crops.labels_HW, self.card.outputs, self.card.decision.rule)
        loss = self.loss(logits_NCHW.float(), targets_NCHW)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_norm)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise TrainingError(
                f"step {step}: the loss is {loss.item()} and its gradient {norm.item()}, so the weights would be "
                f"lost; the last good checkpoint is kept in {str(self.folder)!r}: lower learning_rate and resume"
            )
        self.optimizer.step()
        self._follow(step)
        self.progress.step = step + 1
        return loss.item()

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the average towards the network, faster at first: it must not remember the random start."""
        weight = 1 - min(self.config.average_decay, (1 + step) / (10 + step))
        for mean, current in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(current, weight)
            else:
                mean.copy_(current)

    def _validate(self) -> None:
        """Score the average; where it is the best so far, write it as the bundle, figures on its card."""
        evaluated = evaluate(self.average, self.card, self.validation, self.stride)
        scores = {name: asdict(s) for name, s in evaluated.items()}
        step, mean_iou = self.progress.step, scores["all"]["mean_iou"]
        self.progress.history.append({"step": step, **scores})
        logger.info("step %d: mean foreground IoU %s", step, {n: s["mean_iou"] for n, s in scores.items()})
        if mean_iou > self.progress.best_iou:
            self.progress.best_iou, self.progress.best_step = mean_iou, step
            save_bundle(self.folder / BUNDLE_NAME, self._card_with(scores), self.average)

    def _card_with(self, scores: Mapping[str, Any]) -> ModelCard:
        facts = {
            "training_images": count_groups(self.training),
            "validation": dict(scores),
            "step": self.progress.step,
            "selection": "averaged weights of the step with the best mean IoU on these validation images",
            "config": self.config.model_dump(mode="json"),
        }
        return self.card.model_copy(update={"training": {**self.card.training, **facts}})

    def _save(self) -> None:
        state: dict[str, Any] = {
            "identity": self._identity(),
            "decay_start": self.config.decay_start,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "torch_random": torch.get_rng_state(),
            "progress": asdict(self.progress),
        }
        written = self.folder / f"{CHECKPOINT_NAME}.new"
        torch.save(state, written)
        written.replace(self.folder / CHECKPOINT_NAME)

    def _restore(self) -> None:
        """Take up the folder's checkpoint, unless it belongs to a different training."""
        path, config = self.folder / CHECKPOINT_NAME, self.config
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            raise TrainingError(f"checkpoint {str(path)!r} can't be read: {error}; use another folder") from error
        here, there = self._identity(), state["identity"]
        differing = [
            f"{name} {there.get(name)!r} is now {here[name]!r}" for name in here if here[name] != there.get(name)
        ]
        if differing:
            raise TrainingError(
                f"folder {str(self.folder)!r} holds a different training ({'; '.join(differing)}): "
                "use another folder or the same recipe and data"
            )
        progress = Progress(**state["progress"])
        if progress.step > min(config.decay_start, state["decay_start"]) and config.decay_start != state["decay_start"]:
            raise TrainingError(
                f"the training in {str(self.folder)!r} is at step {progress.step}, its learning rate falls from step "
                f"{state['decay_start']}: its length can't change any more; keep steps as they were"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch_random"])
        self.progress = progress
        logger.info("continuing after step %d", progress.step)

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be continued."""
        names = [[example.name for example in examples] for examples in (self.training, self.validation)]
        return {
            **self.config.model_dump(mode="json", exclude=_FREE_FIELDS),
            **self.card.model_dump(mode="json", include=_LABEL_FIELDS),
            "images": hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16],
        }


def _stride(network: nn.Module, tile_px: int, bands: int) -> int:
    """The grid on which the network's input sides must lie; TrainingError where a crop's side doesn't."""
    stride = math.lcm(*footprint(network, bands).stride)
    if tile_px % stride:
        raise TrainingError(
            f"tile_px {tile_px} is not a multiple of the network's stride {stride}: the network can't take such "
            f"crops; use {-(-tile_px // stride) * stride}"
        )
    return stride
