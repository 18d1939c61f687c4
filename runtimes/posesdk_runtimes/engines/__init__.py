"""TensorRT engines: built once on the device in a process of their own, cached, explained."""
