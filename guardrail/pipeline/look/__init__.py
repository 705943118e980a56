"""One prompt under the microscope: `guard.look(messages)`, and how notebooks and pages show it."""
