use super::*;
use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};

/// A message as AWS's own crate writes it, with headers of every type.
fn message(kind: &str, payload: &[u8]) -> Vec<u8> {
    let values = [
        (":message-type", HeaderValue::String("event".to_owned().into())),
        ("yes", HeaderValue::Bool(true)),
        ("no", HeaderValue::Bool(false)),
        ("byte", HeaderValue::Byte(-1)),
        ("short", HeaderValue::Int16(-2)),
        ("integer", HeaderValue::Int32(3)),
        ("long", HeaderValue::Int64(-4)),
        ("bytes", HeaderValue::ByteArray(vec![0, 255].into())),
        ("time", HeaderValue::Timestamp(aws_smithy_types::DateTime::from_secs(1))),
        ("uuid", HeaderValue::Uuid(7)),
        (":event-type", HeaderValue::String(kind.to_owned().into())),
    ];
    let mut message = Message::new(payload.to_vec());
    for (name, value) in values {
        message = message.add_header(Header::new(name, value));
    }
    let mut out = vec![];
    write_message_to(&message, &mut out).unwrap();
    out
}

/// What came out: kind, payload and whether it was intact; `None` for broken framing.
fn read(parts: &[&[u8]]) -> Vec<Option<(String, Vec<u8>, bool)>> {
    let (mut stream, mut out, mut kind, mut payload) = (EventStream::default(), vec![], String::new(), vec![]);
    for part in parts {
        stream.push(part, |piece| match piece {
            Piece::Headers(headers) => kind = format!("{}/{}", headers.message, headers.kind),
            Piece::Part(part) => payload.extend_from_slice(part),
            Piece::End { intact } => out.push(Some((kind.clone(), std::mem::take(&mut payload), intact))),
            Piece::Broken => out.push(None),
        });
    }
    out
}

#[test]
fn reads_what_aws_writes_wherever_it_is_cut() {
    let bytes = [message("metadata", b"{\"usage\":{}}"), message("empty", b""), message("chunk", &[7; 300])].concat();
    let want = vec![
        Some(("event/metadata".to_owned(), b"{\"usage\":{}}".to_vec(), true)),
        Some(("event/empty".to_owned(), vec![], true)),
        Some(("event/chunk".to_owned(), vec![7; 300], true)),
    ];
    for at in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(read(&[head, tail]), want, "cut at {at}");
    }
    assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), want);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = message("metadata", b"{\"usage\":{\"inputTokens\":1}}");
    for at in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[at / 8] ^= 1 << (at % 8);
        let intact = read(&[&bad]).iter().flatten().any(|(_, _, intact)| *intact);
        assert!(!intact, "bit {at}");
    }
}

#[test]
fn a_message_without_headers_is_one_too() {
    let mut out = vec![];
    write_message_to(&Message::new(&b"x"[..]), &mut out).unwrap();
    assert_eq!(read(&[&out]), [Some(("/".to_owned(), b"x".to_vec(), true))]);
}

#[test]
fn lengths_past_the_bounds_end_the_reading() {
    let prelude = |total: u32, headers: u32| {
        let mut bytes = [total.to_be_bytes(), headers.to_be_bytes()].concat();
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes
    };
    let overhead = PRELUDE_BYTES as u32 + CHECKSUM_BYTES;
    for (total, headers, broken) in [
        (overhead + PAYLOAD_BYTES_MAX, 0, false),
        (overhead + PAYLOAD_BYTES_MAX + 1, 0, true),
        (overhead + HEADERS_BYTES_MAX, HEADERS_BYTES_MAX, false),
        (overhead + HEADERS_BYTES_MAX + 1, HEADERS_BYTES_MAX + 1, true),
        (overhead - 1, 0, true),
        (overhead, 1, true),
    ] {
        assert_eq!(read(&[&prelude(total, headers)]) == [None], broken, "{total} {headers}");
    }
}

#[test]
fn headers_that_do_not_add_up_are_no_reason_to_panic() {
    for block in [&b"\xff"[..], b"\x01a", b"\x01a\x07\x00", b"\x01a\x07\x00\x05abc", b"\x01a\x63", b"\x00\x07\x00\x00"] {
        assert_eq!(Headers::read(block), Headers::default());
    }
}
