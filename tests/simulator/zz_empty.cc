// Removed once there are tests beside it.
