"""From sums to a verdict: what is explained, what is at fault, and the next step."""
