"""All photos of a run in device memory: crops, colors and targets are made there, a batch at a time."""
