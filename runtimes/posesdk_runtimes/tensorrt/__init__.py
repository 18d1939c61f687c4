"""TensorRT engines run with numpy and ctypes alone."""
