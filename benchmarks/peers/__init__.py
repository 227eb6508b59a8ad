"""Other libraries over the line protocol, used as their documentation shows; each runs in an environment of its own."""
