"""Data sets, augmentation and training targets."""
