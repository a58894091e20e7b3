"""What AWS gives a person's laptop, as stand-ins that print and exit like the real ones, which cannot be had here.

The standard library only: they start once for every ssh.
"""
