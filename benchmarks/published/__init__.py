"""The published arithmetic of LOGO-CAP (arXiv 2109.03622) in plain PyTorch: what the benchmarks compare with.

Eager mode and torch's defaults, everything in the published coordinate frame. It shares the network and its weights
with the product, and nothing else: no formula here comes from `posesdk` or from its twin in training.
"""
