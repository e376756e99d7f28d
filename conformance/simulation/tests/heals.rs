//! Healing as a property: whatever is spoilt, lost, set back or added, on
//! either side or on both, after one meeting both sides hold the same, and of
//! each record the newest that was left intact anywhere. The server keeps its
//! records in memory, and in SQLite, whose rows are damaged behind its back.

use gosync_client::replica::edit::Edit;
use gosync_proto::Key;
use gosync_proto::limits::Limits;
use gosync_simulation::healing::{Kind, Pair, Side};
use gosync_simulation::storage::Keeps;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

/// What stood under a key before.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Base {
    Nothing,
    Put,
    Tombstone,
}

/// A key, and what befalls it on each side, one after the other.
#[derive(Clone, Debug)]
struct Plan {
    base: Base,
    server: Vec<Kind>,
    device: Vec<Kind>,
}

fn key(n: usize) -> Key {
    Key::new(format!("k{n:04}").into_bytes()).unwrap()
}

/// Small answers, so that few records already take several.
fn narrow() -> Limits {
    Limits {
        max_push_records: Limits::FLOOR.max_push_records,
        max_response_bytes: Limits::FLOOR.max_response_bytes,
        max_reconcile_entries: Limits::FLOOR.max_reconcile_entries,
        ..Limits::default()
    }
}

/// Carries the plans out, with so many records beside that nothing befalls (at
/// least one: a server knows no space that nobody wrote to).
fn heal(plans: &[Plan], beside: usize, limits: Limits, keeps: Keeps) -> anyhow::Result<()> {
    let mut pair = Pair::over(limits, keeps)?;
    if keeps != Keeps::Memory {
        make_room(&mut pair, plans)?;
    }
    let stands = |(n, plan): (usize, &Plan)| (plan.base != Base::Nothing).then_some(n);
    let put = |n: usize| Edit::Put(key(n), format!("value {n}").repeat(1 + n % 40).into());
    let puts = plans.iter().enumerate().filter_map(stands);
    let puts = puts.chain(plans.len()..plans.len() + beside).map(put);
    let gone =
        |(n, plan): (usize, &Plan)| (plan.base == Base::Tombstone).then_some(Edit::Delete(key(n)));
    let deletions = plans.iter().enumerate().filter_map(gone);
    let edits: Vec<Edit> = puts.chain(deletions).collect();
    // a batch is pushed as a whole
    pair.write(edits.chunks(50).map(<[Edit]>::to_vec))?;
    pair.part()?;
    for (n, plan) in plans.iter().enumerate() {
        for (side, kinds) in [(Side::Server, &plan.server), (Side::Device, &plan.device)] {
            for kind in kinds {
                pair.damage(side, *kind, &key(n))?;
            }
        }
    }
    pair.meet()?;
    Ok(())
}

/// What is added to SQLite without a commit takes the place of a record that was
/// replaced: as many are replaced as will be added.
fn make_room(pair: &mut Pair, plans: &[Plan]) -> anyhow::Result<()> {
    let added = plans.iter().flat_map(|plan| &plan.server);
    let added = added.filter(|kind| **kind == Kind::Add).count();
    for round in 0..2 {
        let put = |n: usize| {
            let key = Key::new(format!("spare{n:04}").into_bytes()).unwrap();
            Edit::Put(key, format!("round {round}").into())
        };
        let puts: Vec<Edit> = (0..added).map(put).collect();
        pair.write(puts.chunks(50).map(<[Edit]>::to_vec))?;
    }
    Ok(())
}

/// Everything that can befall one key, up to two things on each side.
fn every_plan() -> Vec<Plan> {
    use Kind::{Add, Corrupt, Drop, RollBack};
    let to_what_stands: &[&[Kind]] = &[
        &[],
        &[Corrupt],
        &[Drop],
        &[RollBack],
        &[RollBack, Corrupt],
        &[RollBack, RollBack],
        &[Corrupt, RollBack],
        &[Drop, Add],
        &[Drop, Add, Corrupt],
    ];
    let to_nothing: &[&[Kind]] = &[&[], &[Add], &[Add, Corrupt], &[Add, RollBack]];
    let mut plans = Vec::new();
    for base in [Base::Nothing, Base::Put, Base::Tombstone] {
        let lists = match base {
            Base::Nothing => to_nothing,
            _ => to_what_stands,
        };
        for server in lists {
            plans.extend(lists.iter().map(|device| Plan {
                base,
                server: server.to_vec(),
                device: device.to_vec(),
            }));
        }
    }
    plans
}

fn each_alone(keeps: Keeps, besides: &[usize]) {
    for plan in every_plan() {
        for beside in besides {
            heal(
                std::slice::from_ref(&plan),
                *beside,
                Limits::default(),
                keeps,
            )
            .unwrap_or_else(|e| panic!("{plan:?} beside {beside}: {e:#}"));
        }
    }
}

fn all_at_once(keeps: Keeps, besides: &[usize]) {
    let plans = every_plan();
    for limits in [Limits::default(), narrow()] {
        for beside in besides {
            heal(&plans, *beside, limits, keeps)
                .unwrap_or_else(|e| panic!("beside {beside}: {e:#}"));
        }
    }
}

#[test]
fn whatever_befalls_one_record_heals() {
    each_alone(Keeps::Memory, &[1, 4]);
}

#[test]
fn whatever_befalls_one_record_heals_over_sqlite() {
    each_alone(Keeps::FaultyDisk, &[1]);
}

#[test]
fn everything_that_can_befall_a_record_heals_at_once() {
    all_at_once(Keeps::Memory, &[1, 1_000]);
}

#[test]
fn everything_that_can_befall_a_record_heals_at_once_over_sqlite() {
    for keeps in [Keeps::File, Keeps::FaultyDisk] {
        all_at_once(keeps, &[1, 1_000]);
    }
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let one = prop_oneof![
        Just(Kind::Corrupt),
        Just(Kind::Drop),
        Just(Kind::RollBack),
        Just(Kind::Add)
    ];
    // most records are sound on most sides
    prop_oneof![2 => Just(Vec::new()), 3 => vec(one, 1..4)]
}

fn plan() -> impl Strategy<Value = Plan> {
    let base = prop_oneof![
        1 => Just(Base::Nothing),
        3 => Just(Base::Put),
        1 => Just(Base::Tombstone)
    ];
    (base, kinds(), kinds()).prop_map(|(base, server, device)| Plan {
        base,
        server,
        device,
    })
}

fn heals(plans: &[Plan], beside: usize, narrow_limits: bool, keeps: Keeps) -> TestCaseResult {
    let limits = match narrow_limits {
        true => narrow(),
        false => Limits::default(),
    };
    heal(plans, beside, limits, keeps).map_err(|e| TestCaseError::fail(format!("{e:#}")))
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn any_damage_to_any_records_on_either_side_heals(
        plans in vec(plan(), 0..30),
        beside in 1_usize..200,
        narrow_limits: bool,
    ) {
        heals(&plans, beside, narrow_limits, Keeps::Memory)?;
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn any_damage_to_any_records_on_either_side_heals_over_sqlite(
        plans in vec(plan(), 0..30),
        beside in 1_usize..200,
        narrow_limits: bool,
    ) {
        heals(&plans, beside, narrow_limits, Keeps::FaultyDisk)?;
    }
}
