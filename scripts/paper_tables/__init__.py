"""The tables of reproduce.py."""
