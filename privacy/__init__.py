"""What may be released: units, clipping, noise, accounting, budgets."""
