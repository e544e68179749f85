"""Who may go next, and how workers hear of it."""
