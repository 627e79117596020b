"""The review: people look at what is held, in the browser, and rule."""
