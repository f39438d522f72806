"""Batched image transforms: geometry, color, crops, mixup; the same kernels on CPU and GPU."""
