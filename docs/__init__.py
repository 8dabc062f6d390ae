"""The documentation, and the program that writes one page of it."""
