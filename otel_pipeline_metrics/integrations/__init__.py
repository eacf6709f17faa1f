"""Adapters to other programs, a module each; none is imported by the package itself."""
