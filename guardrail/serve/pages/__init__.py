"""Pages for people, beside the API: server-rendered HTML that works without JavaScript. See README.md."""
