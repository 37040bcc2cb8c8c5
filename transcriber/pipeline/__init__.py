"""Turns arriving audio into results: live, stored, replayed, on request, and as interim texts."""
