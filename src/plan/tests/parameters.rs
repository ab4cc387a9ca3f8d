//! Settings that recovery depends on, as the WAL tells of them.

use super::world::{What, at, second};
use super::{accepted, plain, refused, wanted};
use crate::plan::Target;
use crate::repository::wal_archive::WalLevel;

#[test]
fn no_plan_leads_across_wal_that_is_too_little_and_the_windows_end_there() {
    let mut world = plain()
        .restarted(at(4, 7000), WalLevel::Minimal, 100)
        .event(1, at(4, 8000), 44, What::Commit(900))
        .restarted(at(5, 200), WalLevel::Replica, 100);
    let refusal = format!("from {} on, in WAL segment 000000010000000000000004", at(4, 7000));
    for target in [
        Target::Time(second(43)),
        Target::Lsn(at(4, 7000)),
        Target::Lsn(at(4, 8000)),
        Target::Xid(900),
        Target::Name("before".to_owned()),
    ] {
        let plan = world.plan(&wanted(target));
        assert!(!plan.problems.is_empty(), "{plan:?}");
    }
    refused(&world.plan(&wanted(Target::Lsn(at(5, 5000)))), &refusal);
    refused(&world.plan(&wanted(Target::Lsn(at(5, 5000)))), "wal_level=minimal");
    assert_eq!(accepted(&world.plan(&wanted(Target::Lsn(at(4, 5000))))).2, at(4, 5000));
    assert_eq!(accepted(&world.plan(&wanted(Target::Time(second(42))))).0.stop, at(2, 1000));
    assert_eq!(world.windows(), [(1, second(21), second(42)), (1, second(61), second(92))]);
    // What came before the backup began is nothing to its recovery.
    let mut world =
        plain().restarted(at(6, 50), WalLevel::Minimal, 100).restarted(at(6, 90), WalLevel::Replica, 100);
    accepted(&world.plan(&wanted(Target::Latest)));
}

#[test]
fn what_was_raised_on_the_way_is_needed_and_what_was_raised_behind_it_is_not() {
    let mut world = plain()
        .restarted(at(3, 200), WalLevel::Replica, 300)
        .restarted(at(4, 200), WalLevel::Replica, 200)
        .restarted(at(7, 200), WalLevel::Replica, 500);
    let needed = |world: &mut super::World, time| {
        let plan = world.plan(&wanted(Target::Time(second(time))));
        accepted(&plan);
        plan.needed.max_connections
    };
    assert_eq!(needed(&mut world, 25), 300);
    assert_eq!(needed(&mut world, 45), 300);
    // From the second backup on: what it was raised to before is in the backup's own control file.
    assert_eq!(needed(&mut world, 62), 500);
    world.backups.truncate(1);
    assert_eq!(needed(&mut world, 75), 500);
}
