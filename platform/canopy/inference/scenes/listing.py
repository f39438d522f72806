"""The scenes that ``--scene`` names: a raster file, a folder of them, or a STAC item."""

from __future__ import annotations

from canopy.errors import DataError, InputError
from canopy.storage import files
from canopy.storage.json_fields import JsonField

OPTION = "--scene"
SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")
STAC_SUFFIXES = (".json", ".geojson")
RASTER_TYPES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff")
REMEDY = f"Give a raster file, a folder of {', '.join(SUFFIXES)} files, or a STAC item."


def list_scenes(address: str, asset: str | None = None) -> list[str]:
    """Addresses of the scenes, in the order of their names.

    Args:
        address: path or URI of a raster file, of a folder, or of a STAC item (JSON).
        asset: name of the asset to take from a STAC item; None: its only raster.

    Raises:
        DataError: when nothing is there, or an item leaves open which asset is meant.
        StorageError: when the object store refuses.
    """
    if files.is_dir(address):
        names = [name for name in files.list_files(address) if files.suffix(name).lower() in SUFFIXES]
        if not names:
            raise DataError(OPTION, "must hold at least one scene", files.shown(address), REMEDY)
        stems = [files.stem(name) for name in names]
        twice = next((stem for stem in stems if stems.count(stem) > 1), None)
        if twice is not None:
            need = "must hold scenes of different names"
            raise DataError(OPTION, need, f"two named {twice}", "Rename one of them.")
        return [files.absolute(files.join(address, name)) for name in names]
    if not files.exists(address):
        raise DataError(OPTION, "must be a scene that exists", files.shown(address), REMEDY)
    if files.suffix(address).lower() in STAC_SUFFIXES:
        return [_asset(address, asset)]
    return [files.absolute(address)]


def _asset(address: str, wanted: str | None) -> str:
    """Address of the raster of a STAC item."""
    item = JsonField.parse(files.read_bytes(address), files.shown(address), DataError, REMEDY)
    assets = item.get("assets")
    found: dict[str, str] = {}
    for name in assets.mapping():
        entry = assets.get(name)
        kind = entry.optional("type")
        href = entry.get("href").text()
        raster = kind.text().startswith(RASTER_TYPES) if kind else files.suffix(href).lower() in SUFFIXES
        if raster:
            found[name] = href
    if wanted is None and len(found) != 1:
        need, got = (
            f"must have one raster asset, or --asset must name it ({files.shown(address)})",
            list(found),
        )
        raise DataError(OPTION, need, ", ".join(got) or "none", "Give --asset NAME.")
    if wanted is not None and wanted not in found:
        raise DataError(
            "--asset", "must be a raster asset of the item", wanted, f"It has {', '.join(found)}."
        )
    href = found[wanted] if wanted is not None else next(iter(found.values()))
    if href.startswith(("http://", "https://")):
        raise DataError(
            OPTION, "must name a file or an object", "an asset at an HTTP address", "Copy it first."
        )
    if files.is_uri(href) or href.startswith("/"):
        return href
    try:
        return files.absolute(
            files.join(files.parent(address)[0] or ".", *href.removeprefix("./").split("/"))
        )
    except InputError as error:
        raise DataError(OPTION, "must name an asset that can be read", error.got, REMEDY) from None
