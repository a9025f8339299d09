"""Tile databases: LMDB in which a crop touches only the pieces of a frame that it needs.

``format`` says what a database holds, ``cells`` cuts frames, ``writer`` makes one, ``store`` reads crops and whole
frames from it.
"""
