"""Origin of a model: the kind of thing that a person named. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unet_core.bundles.card import CARD_NAME, SHIPPED_DIR, locate
from unet_core.bundles.foreign import package_of, refusal_of
from unet_core.bundles.hub.model import HUB
from unet_core.bundles.networks import network_summaries
from unet_core.errors import BundleError

SMP_CONFIG, SMP_WEIGHTS = "config.json", "model.safetensors"

Kind = Literal["bundle", "program", "onnx", "bioimageio", "monai", "smp", "network", "factory", "hub"]
DESCRIBED: frozenset[Kind] = frozenset({"bioimageio", "monai", "hub"})
"""Kinds that may bring their card, which is known only once they are read."""

_FILES: dict[str, Literal["program", "onnx"]] = {".pt2": "program", ".onnx": "onnx"}


@dataclass(frozen=True, slots=True)
class Origin:
    """A model as it was named.

    reference: a shipped name or a bundle's folder, a `.pt2` or `.onnx` file, a package of bioimage.io or a MONAI
        bundle (folder or ZIP), a folder of segmentation_models_pytorch, the name of one of overtile's networks,
        `package.module:factory`, or `hf:OWNER/NAME@COMMIT` for any of the files among these on the Hugging Face Hub.
    weights: of a network or a factory.
    trust_code: leave to run the factory's code.
    parameters: of a network of overtile's.
    card: a file with facts that a model doesn't say of itself.
    """

    reference: str
    weights: Path | None = None
    trust_code: bool = False
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    card: Path | None = None

    @property
    def kind(self) -> Kind:
        """Raises BundleError for a reference that is none of these."""
        if self.reference.startswith(HUB):
            return "hub"
        path = Path(self.reference)
        if (SHIPPED_DIR / self.reference / CARD_NAME).is_file() and path.name == self.reference:
            return "bundle"
        if not (path / CARD_NAME).is_file() and (package := package_of(path)) is not None:
            return package
        if not (path / CARD_NAME).is_file() and (refusal := refusal_of(self.reference)) is not None:
            raise BundleError(refusal)
        if path.is_dir():
            return self._kind_of_folder(path)
        if (kind := _FILES.get(path.suffix.lower())) is not None:
            if path.is_file():
                return kind
            raise BundleError(f"program {self.reference!r} does not exist; correct the path")
        if path.suffix in (".pt", ".pth", ".safetensors"):
            raise BundleError(
                f"{self.reference!r} holds weights, which don't say of which network: name the network or its factory "
                f"as the model, and this file with --weights"
            )
        if ":" in self.reference:
            return "factory"
        if self.weights is not None:
            return "network"
        if self.reference in network_summaries():
            raise BundleError(
                f"{self.reference!r} is a network without weights, which would label at random: make a model of it "
                f"with overtile models import {self.reference} --weights FILE, or train one with overtile train"
            )
        locate(self.reference)
        raise BundleError(f"no model called {self.reference!r}")

    @staticmethod
    def _kind_of_folder(folder: Path) -> Kind:
        if not (folder / CARD_NAME).is_file() and (folder / SMP_CONFIG).is_file():
            if (folder / SMP_WEIGHTS).is_file():
                return "smp"
            raise BundleError(
                f"folder {str(folder)!r} has {SMP_CONFIG} and no {SMP_WEIGHTS}: weights that were pickled are not "
                f"read; save it again with model.save_pretrained of a current segmentation_models_pytorch"
            )
        return "bundle"

    def expect_trust(self) -> None:
        """Refuse to run anybody's code without leave, and files that would have no use."""
        if self.kind == "factory" and not self.trust_code:
            raise BundleError(
                f"model {self.reference!r} is Python code, and making the network runs it with all your rights: read "
                f"it, then give --trust-code; or export it where it is trusted, with torch.export.save, and use the "
                f".pt2"
            )
        if self.weights is not None and self.kind not in ("network", "factory"):
            raise BundleError(
                f"--weights {str(self.weights)!r} has no use: model {self.reference!r} brings its own; leave it out"
            )
        if self.kind == "bundle":
            self.expect_no_card()

    def expect_no_card(self) -> None:
        """Refuse facts beside a bundle's own card, wherever the bundle is from."""
        if self.card is not None:
            raise BundleError(
                f"--card has no use: model {self.reference!r} is a bundle and brings its own card; "
                f"leave it out, or change facts with overtile models import {self.reference} --card FILE --out FOLDER"
            )
