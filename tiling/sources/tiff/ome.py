"""OME-XML: which page holds which channel, what channels are called, how large a pixel is.

OME Model 2016-06, https://docs.openmicroscopy.org/ome-model/.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from xml.etree import ElementTree as ET

from tiling.errors import SourceError
from tiling.geometry import PixelSize
from tiling.sources.facts import FIRST, Moment
from tiling.sources.limits import MAX_BANDS, MAX_XML_BYTES
from tiling.sources.series import FileImage, choose_image

_MICROMETRES = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "pm": 1e-6, "Å": 1e-4}


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One image of an OME-TIFF, at one z and t. `pages` are page numbers, one per channel, in order.

    `shape` is its height and width as the XML has them, 0 where it doesn't say. `images` are all of the file, if it has
    several, and `series` is this one's number.
    """

    pages: tuple[int, ...]
    shape: tuple[int, int]
    channel_names: tuple[str, ...]
    samples_per_channel: int
    pixel_size: PixelSize | None
    focal_planes: int
    times: int
    images: tuple[FileImage, ...] = ()
    series: int = 0


def parse_ome(xml: str, file_name: str, moment: Moment = FIRST) -> OmeImage:
    """Read one image of OME-XML. `file_name` tells planes of this file from those in others.

    `SourceError` where the XML is broken, declares entities, keeps the planes in another file, or has no such image, z
    or t.
    """
    if len(xml) > MAX_XML_BYTES:
        raise SourceError(f"OME-XML of {len(xml)} characters is over {MAX_XML_BYTES}; write it without per-plane data")
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise SourceError("OME-XML declares a document type or entities, which are never followed; remove them")
    try:
        root = ET.fromstring(xml)
    except (ET.ParseError, ValueError) as error:
        raise SourceError(f"OME-XML can't be parsed: {error}") from error
    found = [(image, pixels) for image in _children(root, "Image") for pixels in _children(image, "Pixels")[:1]]
    # Of a set of files, each repeats the XML of all: images that lie in another file are no images of this one.
    here = [each for each in found if not _is_elsewhere(root, each[1], file_name)] or found
    if not here:
        raise SourceError("OME-XML names no image with pixels in this file")
    images = tuple(_told(image, pixels, number) for number, (image, pixels) in enumerate(here))
    series = choose_image(images, moment.series)
    pixels = here[series][1]
    if len(found) > 1 and not _children(pixels, "TiffData"):
        raise SourceError(
            f"OME-XML doesn't say which pages hold {images[series].name!r} of {len(found)} images: another's could "
            "be taken; write the file with TiffData elements"
        )
    read = _image(root, pixels, file_name, moment)
    return replace(read, images=images, series=series) if len(images) > 1 else read


def _told(image: ET.Element, pixels: ET.Element, number: int) -> FileImage:
    name = image.get("Name", "") or image.get("ID", "")
    height, width = (max(0, _integer(pixels, f"Size{axis}", 0)) for axis in "YX")
    called = name[:200] if name and name.isprintable() else f"image {number}"
    return FileImage(called, height, width, _pixel_size(pixels))


def _is_elsewhere(root: ET.Element, pixels: ET.Element, file_name: str) -> bool:
    """True if all planes of an image are said to lie in other files."""
    data = _children(pixels, "TiffData")
    return bool(data) and all(_other_file(root, each, file_name) for each in data)


def _image(root: ET.Element, pixels: ET.Element, file_name: str, moment: Moment) -> OmeImage:
    channels = _children(pixels, "Channel")
    samples = _integer(channels[0], "SamplesPerPixel", 1) if channels else 1
    count = _integer(pixels, "SizeC", 1)
    if samples < 1 or count < 1 or count > MAX_BANDS:
        raise SourceError(f"OME-XML names {count} channels of {samples} samples; 1 to {MAX_BANDS} are allowed")
    planes = max(1, count // samples)
    focal_planes, times = max(1, _integer(pixels, "SizeZ", 1)), max(1, _integer(pixels, "SizeT", 1))
    moment.expect_in(focal_planes, times)
    pages = _channel_pages(root, pixels, planes, file_name, moment)
    names = tuple(channel.get("Name", "") for channel in channels[:planes])
    shape = _integer(pixels, "SizeY", 0), _integer(pixels, "SizeX", 0)
    return OmeImage(pages, shape, names, samples, _pixel_size(pixels), focal_planes, times)


def _channel_pages(
    root: ET.Element, pixels: ET.Element, planes: int, file_name: str, moment: Moment
) -> tuple[int, ...]:
    """The page of each channel at that z and t."""
    order = pixels.get("DimensionOrder", "XYCZT")[2:]
    if sorted(order) != ["C", "T", "Z"]:
        raise SourceError(f"OME-XML gives DimensionOrder {order!r}, which is no order of C, Z and T")
    sizes = {"C": planes, "Z": max(1, _integer(pixels, "SizeZ", 1)), "T": max(1, _integer(pixels, "SizeT", 1))}
    strides: dict[str, int] = {}
    step = 1
    for axis in order:
        strides[axis] = step
        step *= sizes[axis]
    start = moment.z * strides["Z"] + moment.t * strides["T"]
    wanted = {start + channel * strides["C"]: channel for channel in range(planes)}
    pages: dict[int, int] = {}
    for data in _children(pixels, "TiffData"):
        first = sum(_integer(data, f"First{axis}", 0) * strides[axis] for axis in order)
        page = _integer(data, "IFD", 0)
        length = _integer(data, "PlaneCount", 1 if data.get("IFD") is not None else step)
        for plane, channel in wanted.items():
            if first <= plane < first + length:
                _check_file(root, data, file_name)
                pages[channel] = page + plane - first
    if not pages:
        pages = {channel: plane for plane, channel in wanted.items()}
    if len(pages) < planes:
        raise SourceError(f"OME-XML places only {len(pages)} of {planes} channels; the file is incomplete")
    return tuple(pages[channel] for channel in range(planes))


def _check_file(root: ET.Element, data: ET.Element, file_name: str) -> None:
    other = _other_file(root, data, file_name)
    if other:
        raise SourceError(f"OME-XML keeps pixels in another file, {other!r}; merge them into one OME-TIFF")


def _other_file(root: ET.Element, data: ET.Element, file_name: str) -> str:
    """The other file that holds planes; empty where they lie in this one."""
    for uuid in _children(data, "UUID"):
        other = uuid.get("FileName", "")
        if other and other.lower() != file_name.lower() and uuid.text != root.get("UUID"):
            return other
    return ""


def _pixel_size(pixels: ET.Element) -> PixelSize | None:
    sides: list[float] = []
    for axis in "YX":
        factor = _MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            side = float(pixels.get(f"PhysicalSize{axis}", ""))
        except ValueError:
            return None
        if factor is None or not 0 < side * factor < float("inf"):
            return None
        sides.append(side * factor)
    return PixelSize(sides[0], sides[1], "um")


def _children(element: ET.Element, name: str) -> list[ET.Element]:
    """Children by their name without its namespace, which differs between versions of the schema."""
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def _integer(element: ET.Element, name: str, default: int) -> int:
    try:
        return int(element.get(name, default))
    except ValueError as error:
        raise SourceError(f"OME-XML gives {name}={element.get(name)!r}, which is no integer") from error
