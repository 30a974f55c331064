"""The errors that `tiling` raises. Each message names the rule, the value and the remedy, on one line."""

from __future__ import annotations


class TilingError(Exception):
    """Root of every error that the package raises for a user's or the world's mistake."""


class SourceError(TilingError):
    """An image that can't be opened or a region of it that can't be read."""


class ImageChangedError(TilingError):
    """An image whose content is no longer the one that its run began with: what is read of it belongs to no run."""


class PlanError(TilingError):
    """A geometry that would be inexact, would lose pixels, or can't fit into memory."""


class RunError(TilingError):
    """A run folder that is damaged, locked, or belongs to a different run."""


class StagingError(TilingError):
    """Staged tiles that can't be written or read."""


class AnnotationError(TilingError):
    """A GeoJSON file whose polygons can't become labels of an image."""


class RuleError(TilingError):
    """Code of a user's own that finds objects, and fails or doesn't keep to the protocol."""


class ExportError(TilingError):
    """A format that can't say what a run's mask is."""


class WritingError(ExportError):
    """A file of an export that can't be written, mostly because the disk is full."""


class StorageError(TilingError):
    """An object store that can't be named, reached or written."""


class DiskError(StorageError):
    """A disk that is full or can't be written, which no further tile would survive."""


class CutError(StorageError):
    """A request that ended in between; asking again may help."""


class PlaceError(StorageError):
    """A URL that names nothing that a run can be in, or an image be read from."""


class LinkError(DiskError, PlaceError):
    """A link or a file where a run has a folder of its own: what is written there would leave the run."""


class AccessError(StorageError):
    """Refusal of the store to these credentials, or to none."""


class ChangedError(StorageError):
    """A conditional request whose condition doesn't hold: somebody else wrote the object."""
