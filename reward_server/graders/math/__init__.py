"""When two mathematical texts are the same answer."""
