//! Cases are data: a name, the requirements that each check cites, and a
//! function that acts.

use std::pin::Pin;

/// What a case's function returns.
pub type Future = Pin<Box<dyn std::future::Future<Output = Result<(), Stop>> + Send>>;

/// Why a case ended before its end.
#[derive(Clone, Debug)]
pub enum Stop {
    /// What the peer did leaves nothing more to check.
    Peer(String),
    /// The suite itself, or the adapter, failed.
    Suite(String),
}

/// Runs a case to its end, or until `limit` has passed. A case that panics is the
/// suite's own fault, and ends no other.
///
/// # Errors
/// What the case says, or why it was ended.
pub async fn to_its_end(
    case: impl std::future::Future<Output = Result<(), Stop>>,
    limit: std::time::Duration,
) -> Result<(), Stop> {
    use futures::FutureExt as _;
    let case = std::panic::AssertUnwindSafe(case).catch_unwind();
    match tokio::time::timeout(limit, case).await {
        Ok(Ok(end)) => end,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            let text = text.unwrap_or("without a word");
            Err(Stop::Suite(format!("the suite panicked: {text}")))
        }
        Err(_) => Err(Stop::Peer(format!("the case did not end within {limit:?}"))),
    }
}

/// The part of the specification that a case belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Hello, push, snapshot, catch-up, merge, errors, authentication.
    Core,
    /// Reconcile, checkpoints, horizon.
    Heal,
    /// Watch beyond the catch-up.
    Live,
    /// Documents over keys and values: clients only.
    Documents,
    /// Limits, malformed input, hostile peers.
    Hardened,
}

impl Profile {
    /// Every one.
    pub const ALL: [Profile; 5] = [
        Profile::Core,
        Profile::Heal,
        Profile::Live,
        Profile::Documents,
        Profile::Hardened,
    ];

    /// Whether a run without it is still a whole one.
    pub fn optional(self) -> bool {
        false
    }

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Core => "core",
            Profile::Heal => "heal",
            Profile::Live => "live",
            Profile::Documents => "documents",
            Profile::Hardened => "hardened",
        }
    }
}

/// What a case cannot run without. Where it is missing, the case is reported
/// as not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A server that can be stopped and started again.
    Stop,
    /// A server that can be killed.
    Kill,
    /// A server whose clock can be set.
    Clock,
    /// A server that compacts on demand.
    Compact,
    /// A server with backups.
    Backup,
    /// A server whose store can be emptied.
    Wipe,
    /// Tokens of several kinds.
    Tokens,
    /// Tokens that can be revoked.
    Revoke,
    /// A server that speaks FEATURE_LIVE.
    Live,
    /// A peer that speaks FEATURE_RECONCILE.
    Reconcile,
    /// A client whose store survives its process.
    DurableStore,
    /// A client whose clock can be set.
    ClientClock,
    /// A client whose network can be cut by the driver.
    Online,
    /// A client that asks for a new token.
    TokenRefresh,
    /// A peer whose store can be damaged on demand.
    Damage,
    /// A server that can be started with other limits.
    Limits,
    /// A server of which a space can be deleted for good.
    Retire,
    /// A server whose compaction spares what arrived of late.
    Retention,
    /// A server whose storage can be made to fail.
    FailWrites,
    /// gRPC-web among the transports of the run.
    GrpcWeb,
    /// A client whose store can be opened twice.
    TwoOpenings,
    /// A client that holds key ranges.
    Ranges,
    /// A client that gives writes up on demand.
    Discard,
    /// A client that sends rejected writes again on demand.
    Retry,
    /// A client that writes several records as one batch.
    Batches,
    /// A client of the profile `documents`.
    Documents,
    /// A client that looks at all that it stores on demand.
    Verify,
}

impl Need {
    /// What the cases of these profiles need of whoever claims them: that is
    /// judged, whatever else it says that it can do.
    pub fn claimed(profiles: &[String]) -> impl Iterator<Item = Need> {
        profiles.iter().filter_map(|p| match p.as_str() {
            "heal" => Some(Need::Reconcile),
            "live" => Some(Need::Live),
            "documents" => Some(Need::Documents),
            _ => None,
        })
    }

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Need::Stop => "stop",
            Need::Kill => "kill",
            Need::Clock => "clock",
            Need::Compact => "compact",
            Need::Backup => "backup",
            Need::Wipe => "wipe",
            Need::Tokens => "tokens",
            Need::Revoke => "revoke",
            Need::Live => "live",
            Need::Reconcile => "reconcile",
            Need::DurableStore => "durablestore",
            Need::ClientClock => "clientclock",
            Need::Online => "online",
            Need::TokenRefresh => "tokenrefresh",
            Need::Damage => "damage",
            Need::Limits => "limits",
            Need::Retire => "retire",
            Need::Retention => "retention",
            Need::FailWrites => "failwrites",
            Need::GrpcWeb => "grpc-web",
            Need::TwoOpenings => "twoopenings",
            Need::Ranges => "ranges",
            Need::Discard => "discard",
            Need::Retry => "retry",
            Need::Batches => "batches",
            Need::Documents => "documents",
            Need::Verify => "verify",
        }
    }
}

/// How a check counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something must work.
    Positive,
    /// Something must be refused, and the state be unchanged afterwards. Worth
    /// nothing unless the named positive check of the same case passed.
    Negative {
        /// The name of that check.
        twin: &'static str,
    },
}

/// Something that a case declares to find out. Declared and not emitted is
/// failed.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Unique within the case.
    pub name: &'static str,
    /// Positive or negative.
    pub kind: Kind,
    /// The requirements that it guards.
    pub cites: &'static [&'static str],
    /// What is expected, in one sentence.
    pub expects: &'static str,
}

/// A positive check.
pub const fn positive(
    name: &'static str,
    cites: &'static [&'static str],
    expects: &'static str,
) -> Check {
    Check {
        name,
        kind: Kind::Positive,
        cites,
        expects,
    }
}

/// A negative check and its twin.
pub const fn negative(
    name: &'static str,
    twin: &'static str,
    cites: &'static [&'static str],
    expects: &'static str,
) -> Check {
    Check {
        name,
        kind: Kind::Negative { twin },
        cites,
        expects,
    }
}

/// A case, for a context of type `C`.
pub struct Case<C: 'static> {
    /// "push/repeated".
    pub name: &'static str,
    /// What it belongs to.
    pub profile: Profile,
    /// What it cannot run without.
    pub needs: &'static [Need],
    /// The scenario, for people.
    pub about: &'static str,
    /// What it finds out.
    pub checks: &'static [Check],
    /// Does it.
    pub run: fn(C) -> Future,
}

impl<C> Case<C> {
    /// What reports have to agree with.
    pub fn declaration(&self) -> Declaration {
        Declaration {
            name: self.name,
            profile: self.profile,
            needs: self.needs,
            checks: self.checks,
        }
    }
}

/// A case without what it does.
#[derive(Clone, Copy, Debug)]
pub struct Declaration {
    /// "push/repeated".
    pub name: &'static str,
    /// What it belongs to.
    pub profile: Profile,
    /// What it cannot run without.
    pub needs: &'static [Need],
    /// What it finds out.
    pub checks: &'static [Check],
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: one case that panicked ended the run, without a report and with
    /// an exit code that means nothing.
    #[tokio::test]
    async fn a_case_that_panics_is_the_suites_fault_and_no_verdict() {
        let limit = std::time::Duration::from_secs(60);
        let panics = async {
            let number: u8 = "no number".parse().unwrap();
            assert_eq!(number, 0);
            Ok(())
        };
        let end = to_its_end(panics, limit).await;
        assert!(
            matches!(&end, Err(Stop::Suite(why)) if why.contains("InvalidDigit")),
            "{end:?}"
        );
        assert!(to_its_end(async { Ok(()) }, limit).await.is_ok());
        let never = to_its_end(std::future::pending(), std::time::Duration::ZERO).await;
        assert!(matches!(never, Err(Stop::Peer(_))));
    }

    /// Regression: a server that claimed `live` and did not answer FEATURE_LIVE,
    /// and a client that claimed `documents` without the capability, were
    /// reported as ones that those cases are not for.
    #[test]
    fn what_is_claimed_is_judged() {
        let claims = ["core", "heal", "live", "documents", "hardened"].map(str::to_owned);
        let needs: Vec<Need> = Need::claimed(&claims).collect();
        assert_eq!(needs, [Need::Reconcile, Need::Live, Need::Documents]);
        assert_eq!(Need::claimed(&claims[..1]).count(), 0);
    }
}
