"""What builds and checks the tree: code generation, and the proof that what is committed is what is generated."""
