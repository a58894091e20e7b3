"""The rules of access: pure Python, standard library only, no I/O."""
