"""HTTP: who is asking (`tokens`), and what he may see and submit (`domain.authority`)."""
