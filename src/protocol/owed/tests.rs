use proptest::prelude::*;

use super::*;

/// Plays `tags` against a queue of `requests`; gives what was voided and what is left.
fn play(requests: &[Request], tags: &[u8]) -> Result<(Vec<Request>, usize), OutOfStep> {
    let mut owed = Owed::default();
    for request in requests {
        owed.push(*request, Fate::Forward);
    }
    let mut voided = Vec::new();
    for tag in tags {
        owed.receive(*tag, |request| voided.push(request))?;
    }
    Ok((voided, owed.entries.len()))
}

#[test]
fn replies_end_what_they_answer() {
    use Request::*;
    let table: &[(&[Request], &[u8], usize)] = &[
        (&[Query], b"TDDCZ", 0),
        (&[Query], b"TDCTDC", 1),
        (&[Query], b"IZ", 0),
        (&[Query], b"EZ", 0),
        (&[Query], b"HddcCZ", 0),
        (&[Query], b"GCZ", 0),
        (
            &[Parse(1), Bind, DescribePortal, Execute, Sync],
            b"12TDDCZ",
            0,
        ),
        (&[Parse(1), DescribeStatement(1), Sync], b"1tnZ", 0),
        (&[Bind, Execute, Execute, Sync], b"2DsDCZ", 0),
        (&[Bind, Execute, Close, Sync], b"2I3Z", 0),
        (&[FunctionCall], b"VZ", 0),
        (&[Query, FunctionCall], b"CZVZ", 0),
    ];
    for (requests, tags, left) in table {
        let left = Ok((vec![], *left));
        assert_eq!(
            play(requests, tags),
            left,
            "{requests:?}, {}",
            tags.escape_ascii()
        );
    }
}

#[test]
fn a_sync_sent_before_copy_data_is_not_answered() {
    let mut owed = Owed::default();
    for request in [Request::Bind, Request::Execute, Request::Sync] {
        owed.push(request, Fate::Forward);
    }
    owed.receive(b'2', |_| {}).unwrap();
    let entered = owed.receive(b'G', |_| {}).unwrap();
    assert_eq!(entered.progress, Progress::CopyIn { ignored_syncs: 1 });
    assert!(owed.is_copying_in() && owed.is_mid_cycle());
    owed.push(Request::Sync, Fate::Forward);
    for tag in b"CZ" {
        owed.receive(*tag, |_| {}).unwrap();
    }
    assert!(owed.is_at_rest() && !owed.is_copying_in());
}

#[test]
fn an_error_voids_what_stands_before_the_next_sync() {
    use Request::*;
    let requests = [Parse(7), Bind, Execute, Sync, Parse(8), Sync];
    assert_eq!(
        play(&requests, b"E"),
        Ok((vec![Parse(7), Bind, Execute], 3))
    );
    assert_eq!(play(&requests, b"1E"), Ok((vec![Bind, Execute], 3)));
    assert_eq!(
        play(&requests, b"EZ1Z"),
        Ok((vec![Parse(7), Bind, Execute], 0))
    );
}

#[test]
fn a_failed_cycle_is_skipped_up_to_its_sync() {
    let mut owed = Owed::default();
    owed.push(Request::Bind, Fate::Forward);
    owed.push(Request::Execute, Fate::Forward);
    assert!(owed.is_mid_cycle() && !owed.is_skipping());
    owed.receive(b'E', |_| {}).unwrap();
    assert!(owed.is_mid_cycle() && owed.is_skipping());
    owed.push(Request::Sync, Fate::Forward);
    assert!(!owed.is_skipping());
    owed.push(Request::Bind, Fate::Forward);
    owed.receive(b'Z', |_| {}).unwrap();
    assert!(owed.is_mid_cycle() && !owed.is_skipping());
}

#[test]
fn what_no_request_explains_is_out_of_step() {
    use Request::*;
    let table: &[(&[Request], &[u8])] = &[
        (&[], b"Z"),
        (&[Sync], b"C"),
        (&[Bind], b"1"),
        (&[Query], b"V"),
        (&[Bind, Sync], b"Z"),
        (&[Query, Query], b"G"),
        (&[Parse(1)], b"G"),
    ];
    for (requests, tags) in table {
        let last = tags.last().copied().unwrap();
        assert_eq!(play(requests, tags), Err(OutOfStep(last)), "{requests:?}");
    }
}

#[test]
fn a_commit_that_fails_takes_its_capture_with_it() {
    let mut owed = Owed::default();
    owed.push(Request::Bind, Fate::Swallow);
    owed.push(Request::Execute, Fate::Forward);
    owed.push(Request::FunctionCall, Fate::CaptureOfCommit);
    assert!(!owed.skips_capture());
    owed.receive(b'2', |_| {}).unwrap();
    owed.receive(b'E', |_| {}).unwrap();
    // The FunctionCall is answered with nothing.
    assert!(owed.skips_capture() && owed.is_client_waiting());
    assert!(!owed.skips_capture());
    let ended = owed.receive(b'Z', |_| {}).unwrap();
    assert_eq!(ended.progress, Progress::Ready(Request::Sync));
    assert_eq!(ended.fate, Fate::Forward);
    assert!(owed.is_at_rest());
}

/// The tag that ends the reply to a request.
fn end_of(request: Request) -> u8 {
    match request {
        Request::Query | Request::FunctionCall | Request::Sync => b'Z',
        Request::Parse(_) | Request::ParseInVain | Request::ParseInSql => b'1',
        Request::Bind => b'2',
        Request::Close | Request::CloseInSql | Request::Evict(_) => b'3',
        Request::DescribeStatement(_) | Request::DescribePortal => b'n',
        Request::Execute => b'C',
    }
}

const REQUESTS: [Request; 7] = [
    Request::Query,
    Request::FunctionCall,
    Request::Sync,
    Request::Parse(0),
    Request::Parse(7),
    Request::Bind,
    Request::Execute,
];

const FATES: [Fate; Fate::COUNT] = [
    Fate::Forward,
    Fate::Swallow,
    Fate::Settings,
    Fate::Perhaps,
    Fate::Capture,
    Fate::CaptureOfCommit,
    Fate::Number,
    Fate::Trial,
    Fate::Sight,
    Fate::Holdings,
];

proptest! {
    #[test]
    fn what_is_counted_is_what_is_in_the_queue(
        steps in prop::collection::vec((0..12_usize, 0..REQUESTS.len(), 0..FATES.len()), 0..60)
    ) {
        let mut owed = Owed::default();
        for (step, request, fate) in steps {
            match (step, owed.entries.front().copied()) {
                (0, _) => owed.swallow_all(),
                (1, _) => owed.push_synthetic(Synthetic::Nothing),
                (2, _) => {
                    owed.skips_capture();
                }
                (3.., Some(Entry::Synthetic(_))) => {
                    owed.pop_synthetic();
                }
                (3, Some(_)) => {
                    owed.receive(b'E', |_| {}).unwrap();
                }
                (4, Some(Entry::Reply(Request::Execute, _))) => {
                    // It may be refused, in the middle of a cycle.
                    let _ = owed.receive(b'G', |_| {});
                }
                (4..7, Some(Entry::Reply(request, _))) => {
                    owed.receive(end_of(request), |_| {}).unwrap();
                }
                _ => owed.push(REQUESTS[request], FATES[fate]),
            }
            for fate in FATES {
                let is_such = |entry: &Entry| matches!(entry, Entry::Reply(_, of) if *of == fate);
                prop_assert_eq!(owed.owes(fate), owed.entries.iter().any(is_such), "{:?}", fate);
            }
            let is_parse = |entry: &Entry| matches!(entry, Entry::Reply(Request::Parse(1..), _));
            prop_assert_eq!(owed.has_parses(), owed.entries.iter().any(is_parse));
        }
    }
}

#[test]
fn our_own_replies_wait_for_their_turn() {
    let mut owed = Owed::default();
    owed.push(Request::Bind, Fate::Forward);
    owed.push_synthetic(Synthetic::ParseComplete);
    owed.push(Request::Sync, Fate::Forward);
    assert_eq!(owed.pop_synthetic(), None);
    owed.receive(b'2', |_| {}).unwrap();
    assert_eq!(owed.pop_synthetic(), Some(Synthetic::ParseComplete));
    assert!(!owed.is_at_rest());
    owed.receive(b'Z', |_| {}).unwrap();
    assert!(owed.is_at_rest());
}

#[test]
fn a_flushed_cycle_is_not_at_rest_before_its_sync() {
    let mut owed = Owed::default();
    owed.push(Request::Parse(1), Fate::Forward);
    owed.receive(b'1', |_| {}).unwrap();
    assert!(owed.is_empty() && owed.is_mid_cycle() && !owed.is_at_rest());
    owed.push(Request::Sync, Fate::Forward);
    owed.receive(b'Z', |_| {}).unwrap();
    assert!(owed.is_at_rest());
}

#[test]
fn swallowing_all_leaves_nothing_for_the_client() {
    let mut owed = Owed::default();
    owed.push_synthetic(Synthetic::CloseComplete);
    owed.push(Request::Query, Fate::Forward);
    assert!(owed.is_client_waiting());
    owed.swallow_all();
    assert!(!owed.is_client_waiting() && !owed.is_at_rest());
}
