//! The five calls as functions of (access, request, time, store): what a
//! request means, in which order it is judged, what the answer says. Must not
//! know networks, tokens, clocks or runtimes; time and entropy come in as
//! arguments, so that a simulation runs the same code in one thread.

pub mod access;
pub mod refusal;

pub use access::{Access, Right};
pub use refusal::Refusal;
