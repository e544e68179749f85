"""The wrapper: against a fake dispatcher on a real socket, with real operator processes."""
