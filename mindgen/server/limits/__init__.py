"""Who may ask, and for how much at once."""
