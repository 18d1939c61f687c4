"""Pictures of rendered people: golden images that belong to nobody."""
