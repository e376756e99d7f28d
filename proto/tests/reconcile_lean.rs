//! The wire is lean: what a session costs is pinned, so that a change that makes it dearer is a decision.
//! `cargo xtask bench reconcile` measures larger sets, and CPU, beside the `negentropy` crate.

use gosync_proto::limits::Limits;
use gosync_proto::reconcile::Options;

#[path = "support/workload.rs"]
mod workload;
use workload::{Random, Spread, Workload, move_records, session};

#[test]
fn sessions_over_ten_thousand_records_cost_what_they_are_known_to() {
    // differences, spread, bytes, round trips, and the bytes of negentropy 0.5.3 on the same records
    let cells = [
        (1, Spread::Uniform, 788, 2, 1_152),
        (1, Spread::Recent, 779, 2, 1_116),
        (10, Spread::Uniform, 3_250, 2, 6_569),
        (10, Spread::Recent, 829, 2, 1_222),
        (100, Spread::Uniform, 13_623, 2, 42_628),
        (100, Spread::Recent, 1_077, 2, 3_125),
        (1_000, Spread::Uniform, 46_842, 2, 160_847),
        (1_000, Spread::Recent, 4_823, 2, 22_435),
    ];
    for (d, spread, bytes, round_trips, negentropy) in cells {
        let workload = Workload::new(10_000, d, spread);
        let outcome = session(&workload, Options::new(&Limits::default()));
        let case = format!("10000/{d}/{}", spread.name());
        assert_eq!(
            (outcome.bytes, outcome.round_trips),
            (bytes, round_trips),
            "{case}"
        );
        assert_eq!(
            outcome.received + outcome.to_offer,
            d,
            "{case}: all that differs is found"
        );
        assert_eq!(outcome.received, move_records(&workload), "{case}");
        let goal = if spread == Spread::Uniform && d >= 100 {
            0.5
        } else {
            0.85
        };
        assert!(bytes as f64 <= goal * f64::from(negentropy), "{case}");
    }
}

#[test]
fn the_workload_is_the_same_everywhere() {
    assert_eq!(Random(1).next(), 0x910a_2dec_8902_5cc1);
    let workload = Workload::new(10, 4, Spread::Recent);
    assert_eq!(workload.on_replica.iter().filter(|on| !**on).count(), 2);
    assert_eq!(workload.on_server.iter().filter(|on| !**on).count(), 2);
    assert_eq!(workload.merged.len(), workload.records.len());
}
