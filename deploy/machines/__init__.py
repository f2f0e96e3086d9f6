"""What this machine has, and its GPU by the driver's own library."""
