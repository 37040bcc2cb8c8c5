"""The engines. Only an engine's own module imports its library."""
