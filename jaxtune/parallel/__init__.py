"""Where parameters and rows lie on several devices, and what these send each other."""
