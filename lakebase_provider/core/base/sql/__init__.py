"""SQL as text: where its tokens end, and what is a name."""
