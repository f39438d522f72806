"""Data: from labelled images to a catalogue with splits, and from the catalogue to batches.

Preparation, in order: :mod:`sources <canopy.data.sources>`, :mod:`~canopy.data.label_table` (with
:mod:`~canopy.data.table_files` and :mod:`~canopy.data.label_cells`), :mod:`~canopy.data.listing`,
:mod:`~canopy.data.validate`, :mod:`~canopy.data.split`, :mod:`~canopy.data.catalogue`. Packages: ``raster``
decodes files, ``loading`` streams batches, ``transforms`` augments them, ``synthetic`` generates data sets.
"""
