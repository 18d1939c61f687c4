"""Inference backends of posesdk: tensors in, tensors out. They know nothing of people."""
