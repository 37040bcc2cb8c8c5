"""For Python programs that send audio or read results: `Producer` and `Listener`."""
