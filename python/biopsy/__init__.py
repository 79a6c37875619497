"""Nothing is to be imported here: biopsy is a program. `python -m biopsy` starts it."""
