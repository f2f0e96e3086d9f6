"""What a network is made of: its wiring, weights and scales, and the pieces it falls into."""
