"""Annotated pictures of rendered people, from the CC0 assets of the MakeHuman community."""
