"""The verifier service: facts about completions (verdict, accuracy, format) over HTTP."""
