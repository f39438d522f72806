"""Canopy: from a pile of multi-label aerial images to one tuned ensemble, on Ray."""
