"""The plugin system: the hooks, the types that plugins provide, and the manager that loads them."""
