"""What a program remembers: prefix chains of token blocks, and conversations that are stored once and only grow."""
