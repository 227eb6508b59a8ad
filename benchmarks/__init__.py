"""How fast it is: against the broker, against other libraries, against itself. See README.md here."""
