use super::*;
use crate::ledger::read::RECORD_BYTES_MAX;
use crate::ledger::{Close, Outcome, RecordReader, read_folder};
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::sync::Arc;
use std::time::SystemTime;

fn close(bytes_out: u64) -> Rendered {
    Rendered::close(&Close { bytes_out, ..Close::of(Outcome::Ok) })
}

fn ids(folder: &Path) -> (Vec<String>, usize) {
    let mut ids = vec![];
    let damaged = read_folder(folder, |record| ids.push(record.id), |_| {}).unwrap();
    (ids, damaged)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    super::super::read::segments(folder).unwrap().into_iter().map(|(name, _)| folder.join(name)).collect()
}

/// Lets the disk take nothing any more; returns the file that is to be written when it does again.
fn fill_up(ledger: &Ledger) -> Arc<File> {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    std::mem::replace(&mut ledger.segments[0].lock().unwrap().file, Arc::new(full))
}

/// A ledger of two records and the bytes of its only segment.
fn two(folder: &Path) -> (PathBuf, Vec<u8>) {
    let ledger = Ledger::open(folder, 1, u64::MAX, 0).unwrap();
    ledger.append_later("a", &close(1));
    ledger.append("b", &close(1)).unwrap();
    drop(ledger);
    let path = files(folder).remove(0);
    (path.clone(), std::fs::read(path).unwrap())
}

#[test]
fn reads_back_what_was_appended_and_passes_over_what_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (path, whole) = two(folder.path());
    let line = whole.len() / 2;
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (ids, damaged) = ids(folder.path());
        // The newline is not needed to read a record.
        assert_eq!(ids.len(), usize::from(cut + 1 >= line) + usize::from(cut + 1 >= 2 * line), "cut at {cut}");
        assert!(damaged <= 1);
    }
}

#[test]
fn no_flipped_bit_becomes_another_record() {
    let folder = tempfile::tempdir().unwrap();
    let (path, whole) = two(folder.path());
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &flipped).unwrap();
        let mut records = vec![];
        read_folder(folder.path(), |record| records.push(serde_json::to_string(&record).unwrap()), |_| {}).unwrap();
        for record in records {
            let bytes = record.trim_end_matches('}').as_bytes();
            assert!(memchr::memmem::find(&whole, bytes).is_some(), "bit {bit} made {record}");
        }
    }
}

#[test]
fn overlong_lines_are_damage() {
    let mut text = vec![b'x'; RECORD_BYTES_MAX + 1];
    text.push(b'\n');
    close(1).write_record("a", &mut text);
    let mut reader = RecordReader::new(&text[..]);
    assert_eq!(reader.next().unwrap().unwrap().id, "a");
    assert_eq!(reader.damaged, 1);
}

/// What is known of a disk that takes nothing: work is refused, what has happened is kept, and written later.
#[test]
fn nothing_that_happened_is_lost_while_the_disk_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    let good = fill_up(&ledger);
    assert!(ledger.append_or_keep("happened", &close(1)).is_err());
    assert!(ledger.append("refused", &close(1)).is_err());
    ledger.append_later("ended", &close(1));
    assert!(ledger.is_failing(), "what was only put off says nothing of the disk");
    assert!(ledger.flush().is_err());
    assert_eq!((ledger.failures(), ledger.lost(), ids(folder.path()).0.len(), ledger.is_failing()), (3, 0, 0, true));
    assert!(ledger.waiting_bytes() > 0);
    ledger.segments[0].lock().unwrap().file = good;
    ledger.append("next", &close(1)).unwrap();
    assert_eq!(ids(folder.path()), (vec!["happened".to_owned(), "ended".to_owned(), "next".to_owned()], 0));
    assert_eq!(ledger.waiting_bytes(), 0);
}

#[test]
fn what_was_put_in_meanwhile_is_written_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    let dues = [ledger.put_open("a", &close(1)), ledger.put_used("b", &close(2)), ledger.put_open("c", &close(3))];
    assert!(ids(folder.path()).0.is_empty());
    ledger.written(dues[1]).unwrap();
    assert_eq!((ids(folder.path()).0.join(" "), ledger.segments[0].lock().unwrap().flushes), ("a b c".to_owned(), 1));
    let later = ledger.put_open("d", &close(4));
    // Others need not be asked again, and do not write for those who come later.
    ledger.opened(dues[0], "a", &close(1)).unwrap();
    ledger.opened(dues[2], "c", &close(3)).unwrap();
    assert_eq!(ids(folder.path()).0.len(), 3);
    ledger.opened(later, "d", &close(4)).unwrap();
    assert_eq!(
        (ids(folder.path()), ledger.segments[0].lock().unwrap().flushes),
        ((["a", "b", "c", "d"].map(str::to_owned).to_vec(), 0), 2)
    );
}

/// Several began in one turn: who is refused is taken out, from wherever it stands, and nobody else.
#[test]
fn who_is_refused_takes_nobody_along() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    let good = fill_up(&ledger);
    let refused = ledger.put_open("refused", &close(1));
    let happened = ledger.put_used("happened", &close(2));
    let lucky = ledger.put_open("lucky", &close(3));
    assert!(ledger.opened(refused, "refused", &close(1)).is_err() && ledger.written(happened).is_err());
    ledger.segments[0].lock().unwrap().file = good;
    ledger.opened(lucky, "lucky", &close(3)).unwrap();
    assert_eq!((ids(folder.path()), ledger.is_failing(), ledger.lost()), ((vec!["happened".to_owned(), "lucky".to_owned()], 0), false, 0));
}

/// The disk took some lines and no more: who stands in one of those was written.
#[test]
fn who_was_written_before_the_disk_was_full_is_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    let (first, second) = (ledger.put_open("first", &close(1)), ledger.put_open("second", &close(2)));
    {
        let mut segment = ledger.segments[0].lock().unwrap();
        let line = segment.lines.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let written = segment.lines[..line].to_vec();
        (&*segment.file).write_all(&written).unwrap();
        segment.take(line);
    }
    let good = fill_up(&ledger);
    ledger.opened(first, "first", &close(1)).unwrap();
    assert!(ledger.opened(second, "second", &close(2)).is_err());
    ledger.segments[0].lock().unwrap().file = good;
    ledger.append("third", &close(3)).unwrap();
    assert_eq!(ids(folder.path()).0, ["first", "third"]);
}

#[test]
fn that_a_disk_takes_lines_again_is_found_out_without_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    let good = fill_up(&ledger);
    assert!(ledger.append("refused", &close(1)).is_err());
    assert!(ledger.flush().is_err() && ledger.is_failing());
    ledger.segments[0].lock().unwrap().file = good;
    assert!(ledger.flush().is_ok() && !ledger.is_failing());
    assert_eq!(ids(folder.path()), (vec![], 0));
}

#[test]
fn a_line_that_was_torn_is_written_again_whole() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    ledger.append("first", &close(1)).unwrap();
    {
        // As if the disk had taken all of the second line and half of the third.
        let mut segment = ledger.segments[0].lock().unwrap();
        close(2).write_record("second", &mut segment.lines);
        let second = segment.lines.len();
        close(3).write_record("third", &mut segment.lines);
        let part = segment.lines[..second + 20].to_vec();
        (&*segment.file).write_all(&part).unwrap();
        segment.take(part.len());
    }
    ledger.append("fourth", &close(4)).unwrap();
    let (ids, damaged) = ids(folder.path());
    assert_eq!((ids, damaged), (["first", "second", "third", "fourth"].map(str::to_owned).to_vec(), 0));
}

/// Only the newline of a line was missing when the disk was full, and its attempt was refused.
#[test]
fn a_refused_line_that_is_whole_but_for_its_end_is_no_record_whatever_follows() {
    for follows in ["a record", "another segment", "nothing"] {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
        {
            let mut segment = ledger.segments[0].lock().unwrap();
            let mut line = vec![];
            close(1).write_record("refused", &mut line);
            (&*segment.file).write_all(&line[..line.len() - 1]).unwrap();
            segment.take(line.len() - 1);
        }
        match follows {
            "a record" => ledger.append("next", &close(1)).unwrap(),
            "another segment" => ledger.rotate(1, 1).unwrap(),
            _ => ledger.flush().unwrap(),
        }
        let next = if follows == "a record" { vec!["next".to_owned()] } else { vec![] };
        assert_eq!(ids(folder.path()), (next, 0), "{follows}");
    }
}

#[test]
fn more_than_memory_may_hold_is_lost_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    ledger.segments[0].lock().unwrap().lines = vec![b'\n'; KEPT_BYTES_MAX - 1];
    fill_up(&ledger);
    ledger.append_later("kept", &close(1));
    assert_eq!(ledger.lost(), 0);
    ledger.append_later("lost", &close(1));
    assert_eq!(ledger.lost(), 1);
}

#[test]
fn segments_are_followed_by_others_by_size_and_age_and_forgotten_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, 1000, 0).unwrap();
    ledger.rotate(500, 500).unwrap();
    assert_eq!(files(folder.path()).len(), 1, "nothing is in it");
    ledger.append("a", &close(1)).unwrap();
    ledger.rotate(0, 600).unwrap();
    assert_eq!(files(folder.path()).len(), 1, "neither large nor old");
    ledger.append_later("b", &close(1));
    ledger.rotate(1, 700).unwrap();
    assert_eq!(files(folder.path()).len(), 2);
    (0..20).for_each(|_| ledger.append("c", &close(1)).unwrap());
    ledger.rotate(0, 800).unwrap();
    ledger.sync().unwrap();
    assert_eq!((files(folder.path()).len(), ids(folder.path()).0.len()), (3, 22));
    assert_eq!(ledger.forget(SystemTime::UNIX_EPOCH, |_, _| true).unwrap(), 0);
    let later = SystemTime::now() + std::time::Duration::from_secs(60);
    assert_eq!(ledger.forget(later, |_, _| true).unwrap(), 2, "the one in use stays");
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn what_a_process_that_lives_writes_to_is_never_removed() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = [1, 2].map(|now| Ledger::open(folder.path(), 1, u64::MAX, now).unwrap());
    let later = SystemTime::now() + std::time::Duration::from_secs(60);
    assert_eq!(one.forget(later, |_, _| true).unwrap(), 0);
    other.append("a", &close(1)).unwrap();
    assert_eq!(ids(folder.path()).0, ["a"]);
    drop(other);
    assert_eq!(one.forget(later, |_, _| true).unwrap(), 1);
}

#[test]
fn a_sync_that_fails_is_tried_again_and_known_until_it_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 2, u64::MAX, 0).unwrap();
    (0..20).for_each(|at| ledger.append(&format!("{at}"), &close(1)).unwrap());
    let real: Vec<_> = ledger.segments.iter().map(|segment| segment.lock().unwrap().file.clone()).collect();
    // Nothing that can be synced.
    ledger.segments[0].lock().unwrap().file = Arc::new(File::open("/dev/null").unwrap());
    assert!(ledger.sync().is_err() && ledger.is_failing() && ledger.is_unsynced());
    assert_eq!((ledger.failures(), ledger.segments[1].lock().unwrap().dirty), (1, false));
    ledger.segments[0].lock().unwrap().file = real[0].clone();
    ledger.append("later", &close(1)).unwrap();
    assert!(ledger.is_failing(), "a write says nothing about it");
    assert!(ledger.sync().is_err(), "it is tried again");
    ledger.segments[0].lock().unwrap().before = vec![real[0].clone()];
    assert!(ledger.sync().is_ok() && !ledger.is_failing());
}

#[test]
fn bytes_are_where_the_kernel_says_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), 1, u64::MAX, 0).unwrap();
    (0..10).for_each(|_| ledger.append("a", &close(1)).unwrap());
    let segment = ledger.segments[0].lock().unwrap();
    assert_eq!((&*segment.file).stream_position().unwrap(), segment.bytes);
}
