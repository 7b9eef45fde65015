"""What assets return becomes rows, and rows become what assets take."""
