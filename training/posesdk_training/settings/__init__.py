"""The sections of a training configuration, and how a file becomes one."""
