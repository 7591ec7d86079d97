use super::*;
use crate::ledger::{Close, Ledger, Open, Outcome, Rendered, Source, Used};
use crate::price::PicoUsd;

fn open(id: &str) -> Rendered {
    Rendered::open(&Open {
        request_id: id.to_owned(),
        attempt: 1,
        start_ms: 1,
        provider: "p".to_owned(),
        upstream: "u".to_owned(),
        dialect: "chat".to_owned(),
        endpoint: "/e".to_owned(),
        model_requested: "m".to_owned(),
        model: "m".to_owned(),
        stream: false,
        bytes_in: 1,
        billed: true,
        key: None,
        key_name: None,
        org: None,
        credential: None,
        ..Open::default()
    })
}

fn used(reading: u32) -> Rendered {
    let (total, catalog) = (PicoUsd(i128::from(reading)), String::new());
    Rendered::used(&Used {
        reading,
        source: Source::Reported,
        lines: vec![],
        total,
        catalog,
        provider_cost: None,
        response_id: String::new(),
        unknown: vec![],
    })
}

fn close(reading: Option<u32>) -> Rendered {
    Rendered::close(&Close { metered: reading.is_some(), last_reading: reading, ..Close::of(Outcome::Ok) })
}

/// Ids and totals of what a reader hands out.
fn taken(tail: &mut Tail) -> Vec<(String, i128)> {
    let entries = tail.poll().unwrap();
    entries.into_iter().map(|entry| (entry.id, entry.used.map_or(0, |used| used.total.0))).collect()
}

/// A record's line, whole.
fn line(id: &str, record: &Rendered) -> Vec<u8> {
    let mut out = vec![];
    record.write_record(id, &mut out);
    out
}

#[test]
fn entries_come_when_they_are_complete() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    let mut tail = Tail::new(folder.path(), Cursor::new());
    ledger.append("a", &open("a")).unwrap();
    ledger.append("b", &open("b")).unwrap();
    assert_eq!(taken(&mut tail), []);
    // The close of `a` says that usage was read twice; the second record is yet to come.
    ledger.append("a", &used(1)).unwrap();
    ledger.append("a", &close(Some(2))).unwrap();
    ledger.append("b", &close(None)).unwrap();
    assert_eq!(taken(&mut tail), [("b".to_owned(), 0)]);
    ledger.append("a", &used(2)).unwrap();
    assert_eq!(taken(&mut tail), [("a".to_owned(), 2)]);
    assert_eq!(taken(&mut tail), []);
}

#[test]
fn an_entry_may_lie_in_several_segments_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["1.jsonl", "2.jsonl", "3.jsonl"];
    let records = [line("a", &open("a")), line("a", &used(1)), line("a", &close(Some(1)))];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for (name, at) in names.iter().zip(order) {
            std::fs::write(folder.path().join(name), &records[at]).unwrap();
        }
        assert_eq!(taken(&mut Tail::new(folder.path(), Cursor::new())), [("a".to_owned(), 1)], "{order:?}");
    }
}

/// Whatever is read when, and wherever the reader starts again, each entry is handed out, and none with other numbers.
#[test]
fn nothing_is_passed_over_wherever_it_stops() {
    let records = [
        line("a", &open("a")),
        line("b", &open("b")),
        line("a", &used(1)),
        line("a", &close(Some(1))),
        line("c", &open("c")),
        line("c", &used(3)),
        line("b", &used(2)),
        line("c", &close(Some(3))),
        line("b", &close(Some(2))),
    ];
    let text = records.concat();
    let folder = tempfile::tempdir().unwrap();
    let writer = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    let (name, _) = crate::ledger::segments(folder.path()).unwrap().remove(0);
    let path = folder.path().join(&name);
    for first in 0..=text.len() {
        // A segment that grows, cut anywhere, and its reader begun anew from the cursor it had then.
        std::fs::write(&path, &text[..first]).unwrap();
        let mut tail = Tail::new(folder.path(), Cursor::new());
        let mut got = taken(&mut tail);
        let mut again = Tail::new(folder.path(), tail.cursor());
        std::fs::write(&path, &text).unwrap();
        got.extend(taken(&mut again));
        got.sort();
        got.dedup();
        assert_eq!(got, [("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3)], "stopped at {first}");
        // Records of entries that were handed out before do not hold the cursor back for good.
        (0..ORPHAN_SWEEPS + 1).for_each(|_| drop(taken(&mut again)));
        assert_eq!(again.cursor()[&name], text.len() as u64, "stopped at {first}");
    }
    drop(writer);
}

#[test]
fn what_a_process_left_is_handed_out_once_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    ledger.append("a", &open("a")).unwrap();
    ledger.append("a", &used(1)).unwrap();
    let mut tail = Tail::new(folder.path(), Cursor::new());
    (0..5).for_each(|_| assert_eq!(taken(&mut tail), []));
    drop(ledger);
    let entries = tail.poll().unwrap();
    assert_eq!((entries[0].outcome(), entries.len()), (Outcome::Interrupted, 1));
    assert_eq!(tail.cursor().values().sum::<u64>(), crate::ledger::segments(folder.path()).unwrap()[0].1);
}

#[test]
fn a_torn_line_waits_for_its_end_or_its_writers() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    let (name, _) = crate::ledger::segments(folder.path()).unwrap().remove(0);
    let whole = [line("a", &open("a")), line("a", &close(None))].concat();
    // All but the newline: it could be a line that goes on.
    std::fs::write(folder.path().join(&name), &whole[..whole.len() - 1]).unwrap();
    let mut tail = Tail::new(folder.path(), Cursor::new());
    assert_eq!(taken(&mut tail), []);
    drop(ledger);
    assert_eq!(taken(&mut tail), [("a".to_owned(), 0)]);
    assert_eq!(tail.damaged, 0);
}

#[test]
fn a_backlog_is_read_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let one = [line("a", &open("a")), line("a", &close(None))].concat();
    let count = 3 * usize::try_from(PIECE_BYTES).unwrap() / one.len();
    std::fs::write(folder.path().join("1.jsonl"), one.repeat(count)).unwrap();
    let mut tail = Tail::new(folder.path(), Cursor::new());
    let (mut entries, mut polls) = (0, 0);
    loop {
        entries += tail.poll().unwrap().len();
        polls += 1;
        if tail.lag_bytes == 0 {
            break;
        }
    }
    assert_eq!((entries, polls), (count, 3));
}

/// An entry is read again whole or not at all, also where its lane went on in another segment.
#[test]
fn entries_that_span_segments_come_again_whole() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, records: &[Vec<u8>]| std::fs::write(folder.path().join(name), records.concat()).unwrap();
    let long = line("long", &open("long"));
    write("1.w.0.jsonl", &[line("before", &open("before")), long.clone(), line("x", &open("x"))]);
    write("2.w.0.jsonl", &[line("before", &close(None)), line("x", &used(1)), line("x", &close(Some(1)))]);
    write("3.w.1.jsonl", &[line("other", &open("other")), line("other", &close(None))]);
    // Its writer lives: the long one is not given up.
    let lock = File::create(folder.path().join("w.lock")).unwrap();
    lock.lock().unwrap();
    let mut tail = Tail::new(folder.path(), Cursor::new());
    let mut got = taken(&mut tail);
    got.sort();
    assert_eq!(got, [("before".to_owned(), 0), ("other".to_owned(), 0), ("x".to_owned(), 1)]);
    let held = line("before", &open("before")).len() as u64;
    let other = std::fs::metadata(folder.path().join("3.w.1.jsonl")).unwrap().len();
    let want = [("1.w.0.jsonl".to_owned(), held), ("2.w.0.jsonl".to_owned(), 0), ("3.w.1.jsonl".to_owned(), other)];
    assert_eq!(tail.cursor(), Cursor::from(want));
    let mut again = Tail::new(folder.path(), tail.cursor());
    assert_eq!(taken(&mut again), [("x".to_owned(), 1)]);
    (0..ORPHAN_SWEEPS + 1).for_each(|_| assert_eq!(taken(&mut again), []));
    assert_eq!(again.pending().unwrap().map(|(entry, _)| entry.id).collect::<Vec<_>>(), ["long"]);
    drop(lock);
}

/// Several threads come to what one comes to: entries in their order, damage, and where to go on.
#[test]
fn several_threads_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = vec![];
    for at in 0..12_000 {
        let id = format!("entry {at}");
        let records = [open(&id), used(at), close(Some(at))].map(|record| line(&id, &record));
        // Some are damaged, some have no end, some begin with what ends later.
        match at % 500 {
            7 => text.extend_from_slice(b"damage\n"),
            11 => text.extend_from_slice(&records[1]),
            13 => text.extend(records[0].iter().map(|&byte| if byte == b'm' { b'n' } else { byte })),
            _ => {}
        }
        text.extend(records.iter().take(if at % 600 == 17 { 2 } else { 3 }).flatten());
    }
    // Torn, by a writer who is gone.
    text.extend_from_slice(&line("torn", &open("torn"))[..40]);
    assert!(text.len() as u64 > PIECE_BYTES + AT_ONCE_BYTES, "{}", text.len());
    std::fs::write(folder.path().join("1.w.0.jsonl"), text).unwrap();
    let read = |threads| {
        let mut tail = Tail { threads, ..Tail::new(folder.path(), Cursor::new()) };
        let mut entries = vec![];
        while entries.is_empty() || tail.lag_bytes > 0 {
            entries.extend(tail.poll().unwrap());
        }
        // What is given up comes in no order.
        let (whole, mut given_up): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.close.is_some());
        given_up.sort_by(|one, other| one.id.cmp(&other.id));
        (whole, given_up, tail.cursor(), tail.damaged)
    };
    let (one, several) = (read(1), read(3));
    assert_eq!((one.0.len(), one.1.len()), (11_980, 20));
    // 24 of each kind. The torn line is no damage.
    assert_eq!(one.3, 48);
    assert!(one == several);
}
