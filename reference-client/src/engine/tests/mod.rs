//! The engine, event by event, against a scripted server and a real store in
//! memory.

mod ends;
mod failures;
mod flow;
mod history;
mod rig;
mod sessions;
