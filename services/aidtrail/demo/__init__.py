"""The case that Aidtrail starts from, as a story: `registry.ndjson` says who exists, `story` what happens; `cli.demo` plays it."""
