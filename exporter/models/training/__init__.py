"""What a training is made of: images in memory, a learner's steps, a state that survives."""
