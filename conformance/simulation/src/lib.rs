//! Deterministic simulation: the real client and the real server logic in one
//! thread, under one seed, in virtual time.
//!
//! | module | what it is |
//! |---|---|
//! | [`chance`] | the one source of chance |
//! | [`executor`] | virtual time and the tasks in it |
//! | [`trace`] | what happened, and its hash |
//! | [`net`] | links between devices and the server |
//! | [`server`] | the server's request logic over a store, and what befalls servers |
//! | [`storage`] | what a server keeps its data in, and what befalls that |
//! | `shaky` | a server's store whose operations fail at times |
//! | [`failing`] | how often a disk fails |
//! | [`store`] | a device's store: slow, failing at times, and watched |
//! | [`drive`] | what a device keeps its records in |
//! | [`device`] | a client and what runs it |
//! | [`user`] | who writes there, and what |
//! | `papers` | documents, as a naive reader sees them |
//! | [`household`] | a store on a device, and the openings that share it |
//! | [`ledger`] | what must be true, kept by other means |
//! | [`world`] | the kinds of worlds |
//! | `fate` | what happens to a world |
//! | [`traffic`] | what goes over the wire, counted |
//! | [`damage`] | kinds of damage, and where it is done |
//! | `trial` | damage at the end of a run, and how it is healed |
//! | [`healing`] | damage to one server and one device, and what healing it costs |
//! | [`run`] | one run from the first fault to the last check |
//! | [`campaign`] | many runs, on several threads, and what came of them |
//! | [`shrink`] | the least part of a failing run that still fails |
//! | [`hunt`] | whether runs notice an implementation that was made wrong |

pub mod campaign;
pub mod chance;
pub mod damage;
pub mod device;
pub mod drive;
pub mod executor;
pub mod failing;
mod fate;
pub mod healing;
pub mod household;
pub mod hunt;
pub mod ledger;
pub mod net;
mod papers;
pub mod run;
pub mod server;
mod shaky;
pub mod shrink;
pub mod storage;
pub mod store;
pub mod trace;
pub mod traffic;
mod trial;
pub mod user;
pub mod world;
