"""Formats, the affine mapping, granularity, packing and error measures: arrays in, arrays out."""
