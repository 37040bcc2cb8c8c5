"""From arrivals to results: live, stored, replayed, on request, and while somebody still speaks."""
