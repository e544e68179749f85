"""The built-in operators, one a file. They stand on tracesdk alone, like anyone's, and are the only trusted ones."""
