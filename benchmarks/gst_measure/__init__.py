"""What the benchmarks of the GStreamer elements share: a live camera, probes, sub-processes and tables."""
