"""What `megace2 doctor` looks at: software, sensors, and what surrounds a tier."""
