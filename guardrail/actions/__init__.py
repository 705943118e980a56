"""The built-in actions, one file each. They are ordinary plugins and know neither the guard nor engines."""
