"""Aidtrail, in the order in which one event travels.

    domain.events   what happened: a frozen class per fact, as `contract` (../../schemas) says it in Avro
    gateway         over HTTP, by the paths of `routes`: who asks (`tokens`), what he may do (`domain.authority`), and what became of it
    client          in Python: asks the gateway, tries again what is safe, and says what is known
    producer        in Python: a service validates an event, `codec` writes its bytes (`avro` reads them), `log` appends them to `submitted`
      signatures      what an actor signs, and whether a signature is his; his secret key is a file of `keys`
    log             kafka, postgres or memory: three backends, one set of promises
    ledger          reads `submitted`, rules, appends one outcome for each submission to `recorded`
      ruling          decode, ask `domain.rules.check`, stamp: a pure function
      ledger_store    entries by donation on local disk: a cache
      registry_reader who may do what: `registry`, folded by `domain.registry`
    chain           the fences: how every reader of `recorded` tells an entry that counts from one that is void
    projector       reads `recorded`, writes the views, one transaction for each batch
      projection      `domain.fold.apply` folds entries, `domain.status` names the result
      views           PostgreSQL: schema (builds), writer, reader
    timekeeper      finds in the views what has fallen due, and submits that it expired
    audit           `replay` rules again and `rebuild` projects again, and both compare; `cuts` and `as_of` show the past
      seal            signs what `recorded` holds: `merkle` trees, stated in a `manifest`, kept as `tiles`, signed as a `note`
      witness         cosigns for those who do not trust the operator, who asks by `cosigners`
      evidence        what an auditor takes home; `verifier` checks it, alone: it imports nothing of this package
    importers       what others report (UN OCHA FTS) as observed donations

`service` is the loop of the long-running services, `probes` and `health` say how they are, `logs` what they say, `tracing` what belongs
to one trace. `topics` has the names of the topics, `rights` who may do what with them on Kafka, `config` every setting, `errors` every
error, `metrics` every metric, `collectors` those that are read from log and views, `connections` how PostgreSQL is reached. `conformance`
checks what the contract promises: that models and schemas say the same (`agreement`), and that versions can live together
(`compatibility`). `subjects`, `schema_check` and `asyncapi` say the contract to other tools. `cli` starts all of it, on the `embedded`
PostgreSQL if nothing else is set, and prints by `show`; `demo` is a story to play.
"""
