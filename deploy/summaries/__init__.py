"""What an output folder holds, for people and machines."""
