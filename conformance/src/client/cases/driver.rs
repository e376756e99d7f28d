//! The driver itself: that it tells what it cannot do.

use crate::client::{Cx, Outcome};
use crate::suite::{Case, Profile, Stop, positive};

/// The cases of this area. Their checks cite nothing: they are about the
/// driver, on whose honesty all others rest.
pub const CASES: &[Case<Cx>] = &[Case {
    name: "driver/unknown-command",
    profile: Profile::Core,
    needs: &[],
    about: "Commands that do not exist.",
    checks: &[
        positive("unsupported", &[], "the driver answers `unsupported`"),
        positive("goes-on", &[], "and takes the next command"),
    ],
    run: |cx| Box::pin(unknown_command(cx)),
}];

async fn unknown_command(cx: Cx) -> Result<(), Stop> {
    // no list of a driver's has them all: one follows from the seed, as the space does
    let hash = |n: u32, byte: u8| n.wrapping_mul(31).wrapping_add(u32::from(byte));
    let odd = 1_000 + cx.space().bytes().fold(0, hash) % 16_000;
    for number in [900, odd, 17_000] {
        let answer = cx.unknown_command(number).await;
        cx.check(
            "unsupported",
            matches!(answer, Ok(Outcome::Unsupported(_))),
            "unsupported",
            format!("{answer:?}"),
        );
    }
    let opened = cx.open("a").await;
    cx.check(
        "goes-on",
        opened.is_ok(),
        "an open store",
        format!("{:?}", opened.err()),
    );
    Ok(())
}
