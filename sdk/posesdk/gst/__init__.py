"""Poses in GStreamer pipelines."""
