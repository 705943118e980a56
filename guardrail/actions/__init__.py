"""The built-in actions, one file each. Plugins like any other: nothing here knows the guard or an engine."""
