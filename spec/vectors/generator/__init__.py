"""The vectors' rules and cases; `../regenerate.py` writes the files."""
