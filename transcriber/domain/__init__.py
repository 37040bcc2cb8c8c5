"""What the program talks about: chunks, the timeline, events, results and errors. Pure, and imports no other room."""
