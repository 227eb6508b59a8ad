"""Other libraries over the line protocol, as their users would write it; each runs in its own environment."""
