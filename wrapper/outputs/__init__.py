"""What operators write: from their bytes, which nobody trusts, to committed files."""
