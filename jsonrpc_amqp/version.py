"""The version of this package, for all that must not import the package as a whole (pure)."""

__version__ = "0.1.0"
