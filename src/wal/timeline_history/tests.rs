use proptest::prelude::*;

use super::*;

fn lsn(text: &str) -> Lsn {
    text.parse().unwrap()
}

const THREE: &[u8] =
    b"1\t0/3000148\tno recovery target specified\n\n2\t0/05000000\tbefore 2026-04-07 15:22:59+00\n";

#[test]
fn a_file_of_any_major_is_read() {
    let history = TimelineHistory::parse(TimelineId(3), THREE).unwrap();
    assert_eq!(history.ancestors.len(), 2);
    assert_eq!(history.ancestors[0].end, lsn("0/3000148"));
    assert_eq!(history.ancestors[0].reason, "no recovery target specified");
    assert_eq!(history.ancestors[1].end, lsn("0/5000000"));
    assert_eq!(history.ancestors[1].reason, "before 2026-04-07 15:22:59+00");
}

#[test]
fn the_position_of_a_switch_belongs_to_the_newer_timeline() {
    let history = TimelineHistory::parse(TimelineId(3), THREE).unwrap();
    assert_eq!(history.timeline_at(lsn("0/0")), TimelineId(1));
    assert_eq!(history.timeline_at(lsn("0/3000147")), TimelineId(1));
    assert_eq!(history.timeline_at(lsn("0/3000148")), TimelineId(2));
    assert_eq!(history.timeline_at(lsn("0/5000000")), TimelineId(3));
    assert_eq!(history.end_of(TimelineId(2)), Some(lsn("0/5000000")));
    assert_eq!(history.end_of(TimelineId(3)), None);
    assert_eq!(history.begin(), lsn("0/5000000"));
    assert!(history.contains(TimelineId(1)) && !history.contains(TimelineId(4)));
    let stretches: Vec<_> = history.stretches().collect();
    assert_eq!(
        stretches,
        [
            (TimelineId(1), lsn("0/0"), Some(lsn("0/3000148"))),
            (TimelineId(2), lsn("0/3000148"), Some(lsn("0/5000000"))),
            (TimelineId(3), lsn("0/5000000"), None),
        ]
    );
}

#[test]
fn comments_and_a_reason_in_any_encoding_are_accepted() {
    let history =
        TimelineHistory::parse(TimelineId(2), b"# why\n\n 1 0/1 at restore point \"\xe9t\xe9\"\n").unwrap();
    assert_eq!(history.ancestors.len(), 1);
}

#[test]
fn what_is_no_history_is_refused_with_its_line() {
    let problem = |number, file: &[u8]| TimelineHistory::parse(TimelineId(number), file).unwrap_err();
    assert!(matches!(problem(2, b"1\tnonsense\tx\n"), HistoryProblem::Line { line: 1, .. }));
    assert!(matches!(problem(2, b"1\n"), HistoryProblem::Line { line: 1, .. }));
    assert!(matches!(problem(2, b"2\t0/1\tx\n"), HistoryProblem::Order { line: 1, .. }));
    assert!(matches!(problem(4, b"2\t0/1\tx\n1\t0/2\tx\n"), HistoryProblem::Order { line: 2, .. }));
    assert!(matches!(problem(4, b"1\t0/2\tx\n2\t0/1\tx\n"), HistoryProblem::Backwards { line: 2, .. }));
    assert_eq!(problem(2, b""), HistoryProblem::Empty(TimelineId(2)));
    assert_eq!(problem(2, &[0; 512]).to_string().chars().take(6).collect::<String>(), "line 1");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(number in 1_u32..9, file in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(TimelineHistory::parse(TimelineId(number), &file));
    }
}
