"""What a researcher asks of networks and algorithms: comparing, characterising, drawing, and the commands for it."""
