"""Short trials before a long run: what it would cost, how fast data comes, which learning rate fits."""
