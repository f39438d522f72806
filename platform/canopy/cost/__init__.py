"""What a run costs: prices, node groups, a simulated schedule beforehand, a meter and a limit."""
