"""The verifier service: facts about completions (verdict, accuracy, format) over HTTP."""

if __name__ != "chorus.reward_server":
    raise ImportError("import chorus.reward_server instead of reward_server, or modules would exist twice")
