"""What a step and a whole recipe cost: predictions from measured or assumed parts."""
