"""What the dashboard shows, as data: the newest records of the audit log, and summaries of them. No HTML."""
