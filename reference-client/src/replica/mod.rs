//! What a replica does with its store: each decision as a function that runs
//! inside one transaction. Knows no network and no particular store.
