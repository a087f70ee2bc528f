"""Values, fields and how they depend on one another: a network as data."""
