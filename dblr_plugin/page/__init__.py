"""A local web page that restores a clip and compares it with the original."""
