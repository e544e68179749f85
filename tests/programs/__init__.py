"""The programs as commands, and several of them together."""
