"""The rules behind the vectors, written from the specification's text; `../regenerate.py` applies them."""
