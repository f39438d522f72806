"""Multi-label losses, and the class weights that they take from label frequencies."""
