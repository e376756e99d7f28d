//! What a case is, how its checks become a verdict, and what a report needs.
//! Knows neither servers nor clients.

mod case;
mod choice;
mod exchange;
mod monitor;
mod recorder;
mod requirements;
mod result;

pub use case::{
    Case, Check, Declaration, Future, Kind, Need, Profile, Stop, negative, positive, to_its_end,
};
pub use choice::{Choice, random_seed, seed_of_case, unique};
pub use exchange::{Exchange, Message, Raw};
pub use monitor::Monitor;
pub use recorder::Recorder;
pub use requirements::{
    Requirement, fingerprint, only_advice, requirement, requirements, text_hash,
};
pub use result::{
    CaseResult, CheckResult, Provenance, RunResult, Verdict, mutant_option, option, patience_option,
};

/// Whether a name matches a pattern in which `*` stands for anything.
pub fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len())
                .filter(|i| tail.is_char_boundary(*i))
                .any(|i| glob(rest, &tail[i..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(glob("push/*", "push/one"));
        assert!(glob("*", ""));
        assert!(glob("*one*", "push/one"));
        assert!(!glob("push/*", "watch/push"));
        assert!(!glob("push", "push/one"));
    }
}
