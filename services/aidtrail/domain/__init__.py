"""The domain, pure: no clock, no I/O, no randomness, no logging.

    events      what happened: one frozen class per fact
    money       decimals by currency, never added across currencies
    donation    the state of one donation, and what follows from it alone: deadlines, the hash of its terms
    fold        `apply`: state and event -> next state, for every event ever recorded
    balances    sums over that state: in flight, consumed, held
    registry    who exists: parties, actors, mechanisms
    rules       `check`: may this event follow? A table of event type -> named rules, printable with `rules.policy`
    status      what people ask for: four axes, one headline, amounts by currency
    invariants  what must hold of every donation, whatever happened

Read `events`, then the table in `rules`, then `fold`.
"""
