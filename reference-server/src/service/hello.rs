//! Hello: version and features, limits and clock, where the space stands, and
//! whether the replica's ranges are equal already.

use super::{Access, Asked, Refusal, Service, Standing};
use gosync_proto::wire;
use gosync_proto::{Digest, Invalid, PROTOCOL_VERSION, Reason, Time};

/// What this server can do.
const FEATURES: [wire::Feature; 2] = [wire::Feature::Reconcile, wire::Feature::Live];

/// The longest name of a client, in bytes.
const MAX_CLIENT_BYTES: usize = 128;

impl Service {
    /// Answers from one state of the store.
    ///
    /// # Errors
    /// UNSUPPORTED_VERSION, MALFORMED, LIMIT_EXCEEDED, NO_ACCESS,
    /// SPACE_RETIRED, LAGGING, and what the store says.
    pub fn hello(
        &self,
        access: &Access,
        request: wire::HelloRequest,
        now_ms: u64,
    ) -> Result<wire::HelloResponse, Refusal> {
        if !request.versions.contains(&PROTOCOL_VERSION) {
            return Err(Refusal::new(
                Reason::UnsupportedVersion,
                format!("this server speaks version {PROTOCOL_VERSION} of the protocol only"),
            ));
        }
        if request.client.len() > MAX_CLIENT_BYTES {
            let (most, came) = (MAX_CLIENT_BYTES as u64, request.client.len() as u64);
            return Err(Invalid::limit("client", "max_client_bytes", most, came).into());
        }
        let asked = Asked::check(self, access, &request.space, &request.held)?;
        let offered = request
            .fingerprints
            .iter()
            .map(|f| Digest::try_from(&f[..]))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| e.within("fingerprints"))?;
        if !offered.is_empty() && offered.len() != asked.ranges().count() {
            return Err(Invalid::malformed(
                "fingerprints",
                "are not as many as the ranges of held",
            )
            .into());
        }
        let newest = request.newest_commit.map(Into::into);
        let authoritative = self.store().authoritative();
        let (answer, _) = self.with_tree(&asked.space, |tree, tx| {
            let standing = Standing::judge(tx, &asked.held, newest, authoritative)?;
            let comparable = Time(request.horizon) == standing.state.position.horizon;
            let equal = if comparable && !offered.is_empty() {
                let ours = asked.ranges().map(|range| tree.summary(range).fingerprint);
                ours.zip(&offered).map(|(a, b)| a == *b).collect()
            } else {
                Vec::new()
            };
            let total_records = if asked.held.is_empty() {
                standing.state.records
            } else {
                asked.ranges().map(|range| tree.count(range)).sum()
            };
            Ok::<_, Refusal>((standing, equal, total_records))
        })?;
        let (standing, equal, total_records) = answer?;
        Ok(wire::HelloResponse {
            version: PROTOCOL_VERSION,
            features: FEATURES
                .iter()
                .map(|&f| f as i32)
                .filter(|f| request.features.contains(f))
                .collect(),
            server_time_ms: now_ms,
            limits: Some(self.limits().to_wire()),
            grants: access.to_wire(),
            position: Some(standing.state.position.to_wire()),
            restore_points: standing.ancestry.to_wire(),
            held: standing.held_to_wire(),
            equal,
            total_records,
        })
    }
}
