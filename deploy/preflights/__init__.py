"""Whether an engine fits a machine, said before anything is loaded."""
