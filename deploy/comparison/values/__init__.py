"""What a comparison finds, as frozen values."""
