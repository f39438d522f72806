"""Multi-label losses, and their class weights computed from label frequencies."""
