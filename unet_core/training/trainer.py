"""Training a network on examples: resumable at any step, with the same result as if never interrupted.

Everything random in a step follows from the seed and the step's number, so a resumed training draws the very
crops that an undisturbed one would have drawn.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from unet_core.bundles.bundle import load_bundle, save_bundle
from unet_core.bundles.card import ModelCard
from unet_core.errors import TrainingError
from unet_core.models.unetpp import UNetPlusPlus
from unet_core.training.augmentation import CropSampler
from unet_core.training.border import border_weights
from unet_core.training.checkpoint import CHECKPOINT_NAME, read_checkpoint, write_checkpoint
from unet_core.training.data import Annotated, Example, check_examples, check_measurable, count_groups
from unet_core.training.evaluation import agreement, evaluate, scores_of
from unet_core.training.feed import Feed
from unet_core.training.learner import Learner, head_count
from unet_core.training.processes import Processes
from unet_core.training.recipe import TrainingConfig

__all__ = ["BUNDLE_NAME", "CHECKPOINT_NAME", "Trainer", "TrainingProgress"]

logger = logging.getLogger(__name__)

BUNDLE_NAME = "bundle"
_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
# Part of what a checkpoint must agree on: the version of the arithmetic that turns a recipe into steps.
_MATHS_VERSION = 2
# What a resumed training may change: none of these alters a step that is already done.
_FREE_FIELDS = {"steps", "validate_every", "checkpoint_every", "threads", "patience", "loaders", "device"}
_LABEL_FIELDS = {"architecture", "parameters", "bands", "dtype", "classes", "decision", "normalization"}


@dataclass(slots=True)
class TrainingProgress:
    """Progress of a training.

    `history` holds one entry per validation, `losses` one number per step, `image_ious` the foreground IoU of
    each validation image at the best step, in their order; NaN where neither side holds any.
    """

    step: int = 0
    best_iou: float = -1.0
    best_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    image_ious: list[float] = field(default_factory=list)

    def is_stale(self, patience: int | None) -> bool:
        """True if as many validations as that, in a row and to the last, brought nothing better."""
        return patience is not None and sum(entry["step"] > self.best_step for entry in self.history) >= patience


class Trainer:
    """One training: its learner, its examples and its folder.

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
        _check_separable(config, card, [*training, *validation])
        self.config, self.card, self.folder = config, card, folder
        self.training, self.validation = _weighted(training, config), validation
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.processes = Processes.joined()
        self.learner = Learner(config, card, self.processes)
        loaders = config.loaders if config.loaders is not None else 4 * (self.learner.device.type == "cuda")
        sampler = CropSampler(config, self.training, _FULL_SCALE[card.dtype])
        self.feed = Feed(sampler, self.processes, loaders)
        self.progress = TrainingProgress()
        folder.mkdir(parents=True, exist_ok=True)
        self._restore()

    def run(
        self, until: int | None = None, on_step: Callable[[TrainingProgress], None] | None = None
    ) -> TrainingProgress:
        """Train up to step `until` (default: to the end), then return how it went; `on_step` is called after each step.

        Raises TrainingError where the loss or a gradient is not finite; the last checkpoint stays as it was.
        """
        config, progress = self.config, self.progress
        last = config.steps if until is None else min(until, config.steps)
        while progress.step < last and not progress.is_stale(config.patience):
            progress.losses.append(self.learner.learn(progress.step, self.feed.take(progress.step)))
            progress.step += 1
            if progress.step == config.steps or progress.step % config.validate_every == 0:
                self._validate()
            ends = progress.step == last or progress.is_stale(config.patience)
            if ends or progress.step % config.checkpoint_every == 0:
                self._save()
            if on_step is not None and self.processes.leads:
                on_step(progress)
        self.feed.close()
        if self.processes.leads and (progress.step == config.steps or progress.is_stale(config.patience)):
            self._finish()
        self.processes.share(None)
        return progress

    def _validate(self) -> None:
        """Score the average; where it is the best so far, write it as the bundle, figures on its card."""
        progress = self.progress
        if self.processes.leads:
            average, grid = self.learner.average, self.learner.grid
            separates = self.config.separate is not None
            agreements = [
                agreement(average, self.card, example, grid, separates=separates) for example in self.validation
            ]
            scores = {name: asdict(score) for name, score in scores_of(agreements).items()}
            progress.history.append({"step": progress.step, **scores})
            logger.info("step %d: mean foreground IoU %s", progress.step, {n: s["mean_iou"] for n, s in scores.items()})
            mean_iou = scores["all"]["mean_iou"]
            if mean_iou > progress.best_iou:
                progress.best_iou, progress.best_step = mean_iou, progress.step
                progress.image_ious = [each.iou for each in agreements]
                save_bundle(self.folder / BUNDLE_NAME, self._card_with(scores), self.learner.average)
        progress.history, progress.best_iou, progress.best_step = self.processes.share(
            (progress.history, progress.best_iou, progress.best_step)
        )

    def _finish(self) -> None:
        """Add to the best bundle's card how the training ended, and what each level of a UNet++ reaches alone."""
        bundle, progress = load_bundle(self.folder / BUNDLE_NAME), self.progress
        facts: dict[str, Any] = {
            "steps": progress.step,
            "ended": "after all steps"
            if progress.step == self.config.steps
            else f"early: {self.config.patience} validations in a row brought no better mean IoU",
        }
        if isinstance(bundle.module, UNetPlusPlus) and head_count(bundle.module) > 1:
            levels = range(1, bundle.module.level + 1)
            pruned = {level: evaluate(bundle.module.pruned(level), self.card, self.validation) for level in levels}
            facts["pruned"] = {f"L{level}": asdict(scores["all"]) for level, scores in pruned.items()}
        card = bundle.card.model_copy(update={"training": {**bundle.card.training, **facts}})
        save_bundle(self.folder / BUNDLE_NAME, card, bundle.module)

    def _card_with(self, scores: Mapping[str, Any]) -> ModelCard:
        recent = self.progress.losses[-100:]
        facts = {
            "training_images": count_groups(self.training),
            "validation": dict(scores),
            "step": self.progress.step,
            "loss": round(sum(recent) / len(recent), 5),
            "selection": "averaged weights of the step with the best mean IoU on these validation images",
            "config": self.config.model_dump(mode="json"),
            "hardware": f"{self.processes.count} process(es) on {self.learner.device.type}, torch {torch.__version__}",
        }
        return self.card.model_copy(update={"training": {**self.card.training, **facts}})

    def _save(self) -> None:
        if self.processes.leads:
            state = {"identity": self._identity(), "steps": self.config.steps, "progress": asdict(self.progress)}
            write_checkpoint(self.folder, {**state, **self.learner.state()})

    def _restore(self) -> None:
        """Take up the folder's checkpoint, unless it belongs to a different training."""
        state = read_checkpoint(self.folder, self._identity())
        if state is None:
            return
        progress, before = (
            TrainingProgress(**state["progress"]),
            self.config.model_copy(update={"steps": state["steps"]}),
        )
        if any(before.rate_at(step) != self.config.rate_at(step) for step in range(progress.step)):
            raise TrainingError(
                f"the training in {str(self.folder)!r} is at step {progress.step} of {before.steps}, and the learning "
                "rates of steps already done depend on that length: it can't change any more; keep steps as they were"
            )
        self.learner.load_state(state)
        self.progress = progress
        if self.processes.leads:
            logger.info("continuing after step %d", progress.step)

    def _identity(self) -> dict[str, Any]:
        """Facts that must be the same for a checkpoint to be continued."""
        names = [[example.name for example in examples] for examples in (self.training, self.validation)]
        return {
            **self.config.model_dump(mode="json", exclude=_FREE_FIELDS),
            **self.card.model_dump(mode="json", include=_LABEL_FIELDS),
            "images": hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16],
            "processes": self.processes.count,
            "maths": _MATHS_VERSION,
        }


def _check_separable(config: TrainingConfig, card: ModelCard, examples: Sequence[Annotated]) -> None:
    """Hold card and examples against `separate`, where the recipe asks for it."""
    if config.separate is None:
        return
    if len(card.classes) != 3:
        raise TrainingError(
            f"separate makes three classes, ground, interior and border, and the card has {len(card.classes)}: "
            "give the card these three or drop separate"
        )
    for example in examples:
        if not isinstance(example, Example) or example.instances_HW is None:
            raise TrainingError(
                f"separate needs to know the single objects, and the labels of {example.name} name classes only: "
                'give instance labels (label_kind = "instances") or drop separate'
            )


def _weighted(examples: Sequence[Annotated], config: TrainingConfig) -> Sequence[Annotated]:
    """The examples with the border map's weights, where the recipe asks for it; those that have weights keep them."""
    if config.border is None:
        return examples
    w0, sigma, balance = config.border.w0, config.border.sigma, config.border.balance
    weighted: list[Annotated] = []
    for example in examples:
        if not isinstance(example, Example) or example.weights_HW is None:
            if not isinstance(example, Example) or example.instances_HW is None:
                raise TrainingError(
                    f"border needs to know the single objects, and the labels of {example.name} name classes only: "
                    'give instance labels (label_kind = "instances") or drop border'
                )
            weights_HW = border_weights(example.instances_HW, w0, sigma, balance=balance)
            weighted.append(replace(example, weights_HW=weights_HW))
        else:
            weighted.append(example)
    return weighted
