"""One file for each protocol that clients speak. Pure: messages and results in, commands out, no sockets or clocks."""
