"""The engines that there are, each the only room of the library under it."""
