"""Labelled multimodal samples: one `Sample` type, loaders, partitions, and a corpus that needs no download."""

from megace2_iot.datasets.loading import load
from megace2_iot.datasets.sample import Dataset, Sample, Split

__all__ = ["Dataset", "Sample", "Split", "load"]
