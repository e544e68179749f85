"""Deaths at every crash point of the code, each in a process of its own, and what is found after them."""
