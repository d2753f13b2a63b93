"""What a program can do in the world: declaration of tools, their schema, and the seam through which they are called."""
