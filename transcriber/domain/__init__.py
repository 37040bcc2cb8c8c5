"""The program's terms: chunks, the timeline, events, results and errors. Pure, and imports no other room."""
