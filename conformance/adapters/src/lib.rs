//! Puts the reference server and the reference client behind the protocols of
//! the conformance suite (`driver.proto`, `control.proto`). Adapters translate;
//! they know no case and no expectation.
//!
//! | binary | what it wraps |
//! |---|---|
//! | `gosync-adapter-server` | the reference server, in a process of its own with a clock that can be moved |
//! | `gosync-adapter-client` | the native reference client |
//! | `wasm/driver.mjs` | the npm package (WASM) on Node |

pub mod client;
pub mod framing;
pub mod mutants;
pub mod server;
