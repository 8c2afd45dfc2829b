"""Points that run with several seeds."""
