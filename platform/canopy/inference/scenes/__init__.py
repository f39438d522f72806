"""A finished run applied to georeferenced scenes: windows, blending, rasters, vectors, a page."""
