"""What the values of a tensor were: counts that add up exactly, whatever the order."""
