"""Tables of mixed columns: read, understood, encoded as numbers, learned from, stored."""
