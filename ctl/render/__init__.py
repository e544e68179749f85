"""How things look in a terminal. Takes contract messages, answers rich renderables; calls nothing."""
