//! Deliberate errors, one rule each, that tests switch on at run time to see
//! that they are caught: the one list that the conformance suite's adapters and
//! the simulation share. Must not know who catches them.
//!
//! Without the feature `mutants` every place where one could act is
//! `if false`, and the list is not compiled. The feature is asked for by the
//! adapters and the simulation alone; `cargo xtask check` sees to it that no
//! crate that people install does.
//!
//! A place in the code reads `mutant!(AckBeforeDurable)`.

#[cfg(all(any(feature = "client", feature = "server"), feature = "mutants"))]
pub(crate) mod strangers;

// the list: each file hands what stands in it to the next, the last to `mutants!`
#[macro_use]
mod client;
#[macro_use]
mod server;
#[macro_use]
mod both;

/// Whether a mutant of the list acts now. See [`crate::mutant`].
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutant::active($crate::mutant::Mutant::$name)
    };
}

/// What a mutant is a mutant of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The server.
    Server,
    /// The client.
    Client,
    /// A rule that both compute.
    Both,
}

/// One row of the list.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which.
    pub mutant: Mutant,
    /// Its name for people and command lines.
    pub name: &'static str,
    /// What it changes.
    pub side: Side,
    /// Requirements that it breaks.
    pub breaks: &'static [&'static str],
    /// What it does wrong, in a sentence.
    pub about: &'static str,
}

macro_rules! mutants {
    ($($side:ident $name:ident $text:literal $breaks:tt $about:literal;)*) => {
        /// Each deliberate error.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Mutant { $(#[doc = $about] $name,)* }

        /// All of them.
        #[cfg(feature = "mutants")]
        pub const ALL: &[Entry] = &[$(Entry {
            mutant: Mutant::$name,
            name: $text,
            side: Side::$side,
            breaks: &$breaks,
            about: $about,
        },)*];
    };
}

both! {}

/// Those that no client and no server can see at the protocol, and why: what
/// shows elsewhere is the simulation's.
#[cfg(feature = "mutants")]
pub const UNSEEN: &[(Mutant, &str)] = &[
    (
        Mutant::CursorFirst,
        "shows when a device dies between two transactions",
    ),
    (
        Mutant::VerdictsUncounted,
        "what has no verdict is sent again all the same",
    ),
];

/// Whether this mutant acts: in this process, or on this thread.
#[cfg(not(feature = "mutants"))]
pub const fn active(_: Mutant) -> bool {
    false
}

/// For a thread that works for the present one: call the result on it, so that
/// it is the same mutant.
#[cfg(not(feature = "mutants"))]
pub fn inherited() -> impl FnOnce() + Send + 'static {
    || ()
}

#[cfg(feature = "mutants")]
pub use switch::{active, find, inherited, set_process, set_thread};

#[cfg(feature = "mutants")]
mod switch {
    use super::{ALL, Entry, Mutant};
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU16, Ordering};

    /// None acts.
    const NONE: u16 = u16::MAX;

    static PROCESS: AtomicU16 = AtomicU16::new(NONE);
    thread_local! {
        static THREAD: Cell<u16> = const { Cell::new(NONE) };
    }

    /// Whether this mutant acts: in this process, or on this thread.
    pub fn active(mutant: Mutant) -> bool {
        let id = mutant as u16;
        PROCESS.load(Ordering::Relaxed) == id || THREAD.get() == id
    }

    /// Makes this process a mutant: all of its threads. For a program that is
    /// one implementation, from its start to its end.
    pub fn set_process(mutant: Option<Mutant>) {
        PROCESS.store(mutant.map_or(NONE, |m| m as u16), Ordering::Relaxed);
    }

    /// Makes this thread a mutant: for single-threaded runs, many in one
    /// process.
    pub fn set_thread(mutant: Option<Mutant>) {
        THREAD.set(mutant.map_or(NONE, |m| m as u16));
    }

    /// For a thread that works for the present one: call the result on it, so
    /// that it is the same mutant.
    pub fn inherited() -> impl FnOnce() + Send + 'static {
        let id = THREAD.get();
        move || THREAD.set(id)
    }

    /// The row of that name.
    pub fn find(name: &str) -> Option<&'static Entry> {
        ALL.iter().find(|e| e.name == name)
    }
}

#[cfg(all(test, feature = "mutants"))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_each_is_found_by_its_own() {
        let names: BTreeSet<_> = ALL.iter().map(|e| e.name).collect();
        assert_eq!(names.len(), ALL.len());
        for entry in ALL {
            assert_eq!(find(entry.name).unwrap().mutant, entry.mutant);
        }
    }

    #[test]
    fn a_thread_that_inherits_is_the_same_mutant() {
        set_thread(Some(Mutant::TieByArrival));
        let inherit = inherited();
        std::thread::spawn(|| {
            inherit();
            assert!(mutant!(TieByArrival) && !mutant!(NoOp));
        })
        .join()
        .unwrap();
        set_thread(None);
    }

    #[test]
    fn a_thread_is_a_mutant_alone() {
        set_thread(Some(Mutant::TieByArrival));
        assert!(mutant!(TieByArrival) && !mutant!(NoOp));
        std::thread::spawn(|| assert!(!mutant!(TieByArrival)))
            .join()
            .unwrap();
        set_thread(None);
        assert!(!mutant!(TieByArrival));
    }
}
