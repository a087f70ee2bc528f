"""Networks in users' files."""
