//! Which cases run, and how: the same for servers and clients.

use super::{Case, Declaration, Profile, glob};
use crate::net::Wire;
use sha2::{Digest, Sha256};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Differs from run to run, whatever the seed: what an earlier run left behind is
/// not to be met again.
pub fn unique() -> u128 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos())
}

/// The seed of a run that nobody gave one: it cannot be guessed, and every reader
/// of JSON keeps its 53 bits.
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(unique()) >> 11
}

/// Each case has randomness of its own, so that it replays alone. What is made
/// of it, the name of a space among others, does not tell which case it is.
pub fn seed_of_case(seed: u64, name: &str, wire: Wire) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_be_bytes());
    hash.update(format!("{name}@{}", wire.name()));
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// What a run chooses among all cases.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Cases of other profiles do not run.
    pub profiles: Vec<Profile>,
    /// Over which transports.
    pub wires: Vec<Wire>,
    /// Name patterns; none: all.
    pub only: Vec<String>,
    /// Name patterns.
    pub skip: Vec<String>,
    /// Requirement ids; none: all.
    pub requirements: Vec<String>,
    /// Replays the randomness.
    pub seed: u64,
    /// With one call or command.
    pub patience: Duration,
    /// How many cases run at once.
    pub jobs: usize,
}

impl Choice {
    /// Everything, over both transports.
    pub fn everything(patience: Duration, jobs: usize) -> Choice {
        Choice {
            profiles: Profile::ALL.to_vec(),
            wires: vec![Wire::Grpc, Wire::GrpcWeb],
            only: Vec::new(),
            skip: Vec::new(),
            requirements: Vec::new(),
            seed: 1,
            patience,
            jobs,
        }
    }

    /// Whether fewer cases run than there are.
    pub fn filtered(&self) -> bool {
        !(self.only.is_empty() && self.skip.is_empty() && self.requirements.is_empty())
            || Profile::ALL.iter().any(|p| !self.profiles.contains(p))
    }

    /// Whether a case is asked for.
    pub fn selects<C>(&self, case: &Case<C>) -> bool {
        self.picks(&case.declaration())
    }

    /// Whether a case that is declared so is asked for.
    pub fn picks(&self, case: &Declaration) -> bool {
        let named = |patterns: &[String]| patterns.iter().any(|p| glob(p, case.name));
        let cited = |id: &String| case.checks.iter().any(|c| c.cites.contains(&id.as_str()));
        self.profiles.contains(&case.profile)
            && (self.only.is_empty() || named(&self.only))
            && !named(&self.skip)
            && (self.requirements.is_empty() || self.requirements.iter().any(cited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::positive;

    const CASE: Case<()> = Case {
        name: "push/one",
        profile: Profile::Core,
        needs: &[],
        about: "",
        checks: &[positive("there", &["PUSH-018"], "")],
        run: |()| Box::pin(async { Ok(()) }),
    };

    #[test]
    fn a_profile_that_is_named_often_stands_for_no_other() {
        let choice = Choice {
            profiles: vec![Profile::Core; Profile::ALL.len()],
            ..Choice::everything(Duration::ZERO, 1)
        };
        assert!(choice.filtered());
    }

    #[test]
    fn a_case_is_chosen_by_profile_name_and_requirement() {
        let everything = || Choice::everything(Duration::ZERO, 1);
        assert!(everything().selects(&CASE) && !everything().filtered());
        let narrow: [fn(&mut Choice); 4] = [
            |c| c.profiles = vec![Profile::Heal],
            |c| c.only = vec!["watch/*".into()],
            |c| c.skip = vec!["push/*".into()],
            |c| c.requirements = vec!["PUSH-001".into()],
        ];
        for change in narrow {
            let mut choice = everything();
            change(&mut choice);
            assert!(!choice.selects(&CASE) && choice.filtered());
        }
        let chosen = Choice {
            only: vec!["push/*".into()],
            requirements: vec!["PUSH-018".into()],
            ..everything()
        };
        assert!(chosen.selects(&CASE));
    }

    /// Regression: seeds were made of names so that the arithmetic ran backwards, and
    /// a client could read the case's name off the name of its space.
    #[test]
    fn the_seed_of_a_case_is_a_hash_of_all_that_makes_it() {
        let hash = Sha256::digest(b"\0\0\0\0\0\0\0\x01push/one@grpc");
        let seed = seed_of_case(1, "push/one", Wire::Grpc);
        assert_eq!(seed.to_be_bytes(), hash[..8]);
        assert_ne!(random_seed(), random_seed());
        assert!(random_seed() < 1 << 53);
    }
}
