"""The nomenclatures of BigEarthNet: 43 classes of CORINE Land Cover, and 19 that summarize 32 of them.

Source: Sumbul et al., "BigEarthNet-MM: A Large Scale Multi-Modal Multi-Label Benchmark Archive for Remote
Sensing Image Classification and Retrieval", IEEE Geoscience and Remote Sensing Magazine 9(3), 2021, table 3;
order and spelling as in ``label_indices.json`` of the authors' repository BigEarthNet-S2_19-classes_models.
"""

from __future__ import annotations

from typing import Literal

MOSAIC = "Land principally occupied by agriculture, with significant areas of natural vegetation"
SUMMARY: dict[str, str | None] = {
    "Continuous urban fabric": "Urban fabric",
    "Discontinuous urban fabric": "Urban fabric",
    "Industrial or commercial units": "Industrial or commercial units",
    "Road and rail networks and associated land": None,
    "Port areas": None,
    "Airports": None,
    "Mineral extraction sites": None,
    "Dump sites": None,
    "Construction sites": None,
    "Green urban areas": None,
    "Sport and leisure facilities": None,
    "Non-irrigated arable land": "Arable land",
    "Permanently irrigated land": "Arable land",
    "Rice fields": "Arable land",
    "Vineyards": "Permanent crops",
    "Fruit trees and berry plantations": "Permanent crops",
    "Olive groves": "Permanent crops",
    "Pastures": "Pastures",
    "Annual crops associated with permanent crops": "Permanent crops",
    "Complex cultivation patterns": "Complex cultivation patterns",
    MOSAIC: MOSAIC,
    "Agro-forestry areas": "Agro-forestry areas",
    "Broad-leaved forest": "Broad-leaved forest",
    "Coniferous forest": "Coniferous forest",
    "Mixed forest": "Mixed forest",
    "Natural grassland": "Natural grassland and sparsely vegetated areas",
    "Moors and heathland": "Moors, heathland and sclerophyllous vegetation",
    "Sclerophyllous vegetation": "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland/shrub": "Transitional woodland, shrub",
    "Beaches, dunes, sands": "Beaches, dunes, sands",
    "Bare rock": None,
    "Sparsely vegetated areas": "Natural grassland and sparsely vegetated areas",
    "Burnt areas": None,
    "Inland marshes": "Inland wetlands",
    "Peatbogs": "Inland wetlands",
    "Salt marshes": "Coastal wetlands",
    "Salines": "Coastal wetlands",
    "Intertidal flats": None,
    "Water courses": "Inland waters",
    "Water bodies": "Inland waters",
    "Coastal lagoons": "Marine waters",
    "Estuaries": "Marine waters",
    "Sea and ocean": "Marine waters",
}
"""The 43 labels in their official order, each with its label of the 19; None for eleven that are dropped."""
LABELS_43 = tuple(SUMMARY)
LABELS_19 = (
    "Urban fabric",
    "Industrial or commercial units",
    "Arable land",
    "Permanent crops",
    "Pastures",
    "Complex cultivation patterns",
    MOSAIC,
    "Agro-forestry areas",
    "Broad-leaved forest",
    "Coniferous forest",
    "Mixed forest",
    "Natural grassland and sparsely vegetated areas",
    "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland, shrub",
    "Beaches, dunes, sands",
    "Inland wetlands",
    "Coastal wetlands",
    "Inland waters",
    "Marine waters",
)
"""The 19 labels in their official order."""


def nomenclature(size: Literal[19, 43]) -> tuple[str, ...]:
    """The labels of a nomenclature, in their official order."""
    return LABELS_19 if size == 19 else LABELS_43


def summarized(labels_43: tuple[str, ...]) -> tuple[str, ...]:
    """The labels of 19 for some of the 43, each once, in the order of the 19."""
    found = {SUMMARY[label] for label in labels_43}
    return tuple(label for label in LABELS_19 if label in found)
