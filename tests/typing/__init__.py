"""Programs that a type checker reads, and that nothing runs: ``mypy`` checks what each expression is."""
