"""The machine at the other end: SSH, the tunnel, what it is told at birth, what can be read off it, and playbooks."""
