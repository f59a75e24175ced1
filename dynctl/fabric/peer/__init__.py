"""Two nodes: one listens, one connects; each proves to know the token, then both move memory both ways."""
