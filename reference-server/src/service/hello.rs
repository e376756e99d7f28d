//! Hello: version and features, limits and clock, where the space stands, and
//! whether the replica's ranges are equal already.

use super::{Access, Asked, Refusal, Service, Standing};
use crate::store::ReadTx;
use gosync_proto::limits::Limits;
use gosync_proto::wire;
use gosync_proto::{Digest, Invalid, PROTOCOL_VERSION, Reason, Time, mutant};

/// What this server can do.
const FEATURES: [wire::Feature; 2] = [wire::Feature::Reconcile, wire::Feature::Live];

/// More of a client's name is not logged.
const MAX_CLIENT_BYTES: usize = 128;

impl Service {
    /// Answers from one state of the store.
    ///
    /// # Errors
    /// UNSUPPORTED_VERSION, MALFORMED, LIMIT_EXCEEDED (ranges), NO_ACCESS,
    /// SPACE_RETIRED, LAGGING, and what the store says.
    pub fn hello(
        &self,
        access: &Access,
        request: wire::HelloRequest,
        now_ms: u64,
    ) -> Result<wire::HelloResponse, Refusal> {
        if !request.versions.contains(&PROTOCOL_VERSION) && !mutant!(AnyVersionsOffered) {
            return Err(Refusal::new(
                Reason::UnsupportedVersion,
                format!("this server speaks version {PROTOCOL_VERSION} of the protocol only"),
            ));
        }
        if mutant!(UnknownFeatureRefused) && request.features.iter().any(|f| *f > 3) {
            return Err(Invalid::malformed("features", "names one that nobody knows").into());
        }
        let asked = Asked::check(self, access, &request.space, &request.held)?;
        let client = &request.client[..request.client.floor_char_boundary(MAX_CLIENT_BYTES)];
        tracing::debug!(space = %asked.space, client, "hello");
        let offered = request
            .fingerprints
            .iter()
            .map(|f| match Digest::try_from(&f[..]) {
                Err(_) if mutant!(ShortFingerprintsTaken) => Ok(Digest::ZERO),
                digest => digest,
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| e.within("fingerprints"))?;
        let each = offered.len() == asked.ranges().count() || mutant!(FingerprintsUncounted);
        if !offered.is_empty() && (!each || mutant!(FingerprintsRefused)) {
            return Err(Invalid::malformed(
                "fingerprints",
                "are not as many as the ranges of held",
            )
            .into());
        }
        let newest = request.newest_commit.map(Into::into);
        let authoritative = self.store().authoritative();
        let judge = |tx: &mut dyn ReadTx| Standing::judge(tx, &asked.held, newest, authoritative);
        // who only wants to know the server does not need the tree
        let answer = if asked.held.is_empty() {
            let standing = judge(&mut *self.store().read(&asked.space)?)?;
            (standing, Vec::new(), 0)
        } else {
            let (answer, _) = self.with_tree(&asked.space, |tree, tx| {
                let standing = judge(tx)?;
                let comparable = Time(request.horizon) == standing.state.position.horizon
                    || mutant!(OtherHorizonCompared);
                let equal = if comparable && !offered.is_empty() {
                    let ours = asked.ranges().map(|range| tree.summary(range).fingerprint);
                    ours.zip(&offered)
                        .map(|(a, b)| a == *b || mutant!(AlwaysEqual))
                        .collect()
                } else if offered.is_empty() && mutant!(EqualUnasked) {
                    vec![false; asked.ranges().count()]
                } else {
                    Vec::new()
                };
                let records = match mutant!(TotalOfSpace) {
                    false => asked.ranges().map(|range| tree.count(range)).sum(),
                    true => standing.state.records,
                };
                Ok::<_, Refusal>((standing, equal, records))
            })?;
            answer?
        };
        let (standing, equal, total_records) = answer;
        if mutant!(HelloNeedsOrder) {
            standing.check_in_order()?;
        }
        if mutant!(UnwrittenRefused) && standing.state.head() == 0 {
            return Err(Refusal::no_access());
        }
        Ok(wire::HelloResponse {
            version: match request.versions.iter().max() {
                _ if mutant!(ChosenUntold) => 0,
                Some(highest) if mutant!(HighestOffered) => *highest,
                _ => PROTOCOL_VERSION,
            },
            features: FEATURES
                .iter()
                .map(|&f| f as i32)
                .filter(|f| request.features.contains(f) || mutant!(FeaturesUnasked))
                .filter(|_| !(mutant!(LoneFeatureUntold) && request.features.len() == 1))
                .collect(),
            server_time_ms: match mutant!(HelloWithoutTime) {
                false => standing.state.told_time(now_ms),
                true => 0,
            },
            limits: (!mutant!(LimitsUntold)).then(|| told(self.limits())),
            grants: match mutant!(GrantsUntold) {
                false => access.to_wire(),
                true => Vec::new(),
            },
            position: Some(standing.state.position.to_wire()),
            restore_points: match mutant!(RestorePointsUntold) {
                false => standing.ancestry.to_wire(),
                true => Vec::new(),
            },
            held: standing.held_to_wire(),
            equal,
            total_records,
        })
    }
}

/// The limits as they are told.
fn told(limits: &Limits) -> wire::Limits {
    let mut told = limits.to_wire();
    if mutant!(LimitBelowFloor) {
        told.max_push_records = 99;
    }
    if mutant!(LimitAboveCeiling) {
        told.max_value_bytes = 1 << 30;
    }
    if mutant!(WatchdogTooShort) {
        told.watchdog_ms = told.heartbeat_interval_ms;
    }
    told
}
