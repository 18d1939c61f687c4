"""Conversion of checkpoints into bundles, per target."""
