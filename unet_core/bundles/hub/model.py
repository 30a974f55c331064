"""Model of the Hugging Face Hub as it is named, and the files of its repository that are read. Never imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from unet_core.bundles.card import CARD_NAME
from unet_core.bundles.foreign import PACKAGES
from unet_core.errors import BundleError

HUB = "hf:"
SMP_FILES = ("config.json", "model.safetensors")
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"hf:({_PART})/({_PART})(?:@([^/]*)(?:/(.+))?)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GRAPHS = {".onnx", ".pt2"}
_BESIDE_GRAPHS = {".data", ".onnx_data"}
_DATA = {".json", ".yaml", ".yml", ".safetensors", ".onnx", *_BESIDE_GRAPHS}
_NAMED_AT_MOST = 8


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository at a revision, as `hf:OWNER/NAME@REVISION`, and `/PATH` for one file or folder of it.

    >>> HubModel.parse("hf:lab/nuclei@" + "0" * 40 + "/onnx/net.onnx").path
    'onnx/net.onnx'
    """

    owner: str
    name: str
    revision: str
    path: str

    @classmethod
    def parse(cls, reference: str) -> HubModel:
        """Raises BundleError for what is no such name."""
        found = _NAME.fullmatch(reference)
        if found is None:
            raise BundleError(
                f"model {reference!r} is no name on the Hugging Face Hub: give hf:OWNER/NAME@COMMIT, and /PATH after "
                f"it for one file or folder"
            )
        path = (found[4] or "").strip("/")
        if path and not is_inside(path):
            raise BundleError(f"model {reference!r} names a place outside of its repository; give a path inside of it")
        return cls(found[1], found[2], found[3] or "", path)

    @property
    def repository(self) -> str:
        """Owner and name."""
        return f"{self.owner}/{self.name}"

    @property
    def is_pinned(self) -> bool:
        """True if the revision is a commit, whose files never change."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{HUB}{self.repository}{revision}" + (f"/{self.path}" if self.path else "")

    def wanted(self, names: Iterable[str]) -> tuple[list[str], str]:
        """The files to download, and which file or folder of them is the model (empty: the repository's own folder).

        Raises:
            BundleError: none of them is a model that is read without unpickling, or several are.
        """
        every = sorted(name for name in names if is_inside(name))
        if self.path in every:
            return self._of_file(every), self.path
        prefix = f"{self.path}/" if self.path else ""
        inside = [name for name in every if name.startswith(prefix)]
        if not inside:
            raise BundleError(f"model {str(self)!r}: its repository has no {self.path}; it has {_some(every)}")
        below = {name.removeprefix(prefix) for name in inside}
        if CARD_NAME in below or set(PACKAGES) & below or below >= set(SMP_FILES):
            return [name for name in inside if PurePosixPath(name).suffix in _DATA], self.path
        graphs = [name for name in inside if PurePosixPath(name).suffix in _GRAPHS]
        if len(graphs) == 1:
            return _with_data(graphs[0], every), graphs[0]
        if graphs:
            raise BundleError(f"model {str(self)!r} holds {_some(graphs)}: name one, as {HUB}OWNER/NAME@COMMIT/PATH")
        raise BundleError(
            f"model {str(self)!r} holds no bundle, .pt2, .onnx, package of bioimage.io or MONAI, nor smp's "
            f"{' with '.join(SMP_FILES)}, which are read without unpickling; it has {_some(inside)}; download what "
            f"you trust, and import it with its code (docs/own-network.md)"
        )

    def _of_file(self, every: list[str]) -> list[str]:
        if PurePosixPath(self.path).suffix not in {*_GRAPHS, ".zip"}:
            raise BundleError(f"model {str(self)!r} is no .onnx, .pt2 or .zip, which are read without unpickling")
        return _with_data(self.path, every)


def is_inside(name: str) -> bool:
    """True if a file's name leads to a place inside of its repository, and to none that is hidden there.

    Hidden files are no part of a model, and one could take the place of the listing that is kept beside.
    """
    is_name = "\\" not in name and "\0" not in name and not any("\ud800" <= c <= "\udfff" for c in name)
    return is_name and all(part and not part.startswith(".") for part in name.split("/"))


def _with_data(graph: str, every: list[str]) -> list[str]:
    """A graph, and the files beside it that may hold its weights."""
    folder = PurePosixPath(graph).parent
    beside = [each for each in map(PurePosixPath, every) if each.parent == folder and each.suffix in _BESIDE_GRAPHS]
    return [graph, *map(str, beside)] if graph.endswith(".onnx") else [graph]


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
