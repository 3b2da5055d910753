"""interlace: tool-integrated reasoning, from a chat to reinforcement learning, on one engine."""
