"""What a program uses: token counts as engines report them."""
