"""What a producer or a listener in Python uses."""
