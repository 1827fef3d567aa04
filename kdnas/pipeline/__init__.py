"""All stages in their order, the plan before them and the report after."""
