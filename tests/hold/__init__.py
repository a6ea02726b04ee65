"""The agent under attack, faults and load; what it must not lose, leak or let in."""
