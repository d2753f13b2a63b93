"""What a program is made of: declarations of steps and workflows, the graph and its growth, validation, structure, drawing.

Pure: nothing here runs anything, reads a clock or does I/O.
"""
