"""The evaluation suite: methods x tasks, on the user's own model and data, with a report."""
