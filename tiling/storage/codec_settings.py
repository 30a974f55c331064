"""Settings of Zarr's codecs as text: enumerations in Zarr 3.1, texts in newer ones."""

from __future__ import annotations


def setting_text(setting: object) -> str:
    """Text of a setting, such as `end` of where a shard's index lies.

    >>> setting_text("end")
    'end'
    """
    return str(getattr(setting, "value", setting))
