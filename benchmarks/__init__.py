"""Measures speed: against the broker, against other libraries, against itself. See README.md here."""
