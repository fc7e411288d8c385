"""Programs to copy from: a robot's control loop and an animation, each around one model."""
