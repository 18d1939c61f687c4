"""Graphs for TensorRT: float16, signed int8, the fused graph, profiles, and NVIDIA's parser without a GPU."""
