"""What the follow-up decides, as pure functions of facts and time."""
