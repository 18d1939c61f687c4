"""TFLite files from torch modules, and their quantization."""
