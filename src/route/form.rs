//! Bodies of `multipart/form-data`: where each field's value stands. Read strictly, since what could be read two ways
//! could be routed by one and billed by the other. <https://www.rfc-editor.org/rfc/rfc7578>

use memchr::memmem;
use std::ops::Range;

/// More fields are refused.
pub const FIELDS_MAX: usize = 256;
/// The head of a field may be so long.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// <https://www.rfc-editor.org/rfc/rfc2046#section-5.1.1>
const BOUNDARY_BYTES_MAX: usize = 70;

/// A field of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    pub name: &'a str,
    /// Its value's bytes in the body.
    pub value: Range<usize>,
    /// Sent as a file, which is no text to servers.
    pub file: bool,
}

/// True for the content type of a form.
pub fn is_multipart(content_type: &[u8]) -> bool {
    content_type.trim_ascii_start().get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
}

/// The boundary that the content type of a form names; `None` if it names none, or not plainly and once.
pub fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let (name, value) = parameters.trim().split_once('=')?;
    let quoted = value.strip_prefix('"').map(|value| value.strip_suffix('"'));
    let boundary = quoted.unwrap_or(Some(value))?;
    // Other parameters would come after a semicolon.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte) || (byte == b' ' && quoted.is_some());
    let fit = !boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES_MAX && boundary.bytes().all(plain);
    (name.eq_ignore_ascii_case("boundary") && fit).then_some(boundary)
}

/// The fields in their order.
///
/// # Errors
/// Says what is wrong with the form.
pub fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, &'static str> {
    let delimiter = format!("\r\n--{boundary}");
    let first = delimiter.as_bytes().get(2..).unwrap_or_default();
    if !body.starts_with(first) {
        return Err("it does not begin with its boundary");
    }
    let (finder, mut at, mut found) = (memmem::Finder::new(&delimiter), first.len(), vec![]);
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            return if matches!(rest, b"--" | b"--\r\n") { Ok(found) } else { Err("something follows its end") };
        }
        if !rest.starts_with(b"\r\n") {
            return Err("a boundary does not end its line");
        }
        let length = finder.find(rest).ok_or("it ends without its boundary")?;
        let part = rest.get(2..length.max(2)).unwrap_or_default();
        let head =
            memmem::find(part, b"\r\n\r\n").filter(|head| *head <= HEAD_BYTES_MAX).ok_or("a field has no head, or too long a one")?;
        let value = part.get(head + 4..length.saturating_sub(2)).unwrap_or_default();
        if holds_delimiter(value, boundary.as_bytes()) {
            return Err("a value has a line that begins like a boundary");
        }
        let (name, file) = part.get(..head).and_then(disposition).ok_or("a field's head does not say its name as `name=\"…\"`")?;
        if found.len() == FIELDS_MAX {
            return Err("it has too many fields");
        }
        found.push(Part { name, value: at + 2 + head + 4..at + length, file });
        at += length + delimiter.len();
    }
}

/// True if a lenient server may end a value early: a line of it begins with the boundary, after a bare line feed or carriage return.
fn holds_delimiter(value: &[u8], boundary: &[u8]) -> bool {
    let mut dashes = memmem::find_iter(value, b"--");
    dashes.any(|at| {
        let begins_line = at.checked_sub(1).is_none_or(|before| matches!(value.get(before), Some(b'\n' | b'\r')));
        begins_line && value.get(at + 2..).is_some_and(|rest| rest.starts_with(boundary))
    })
}

/// The name that `Content-Disposition: form-data; name="…"` says, if it says so plainly and once, and whether a file's.
fn disposition(head: &[u8]) -> Option<(&str, bool)> {
    let head = std::str::from_utf8(head).ok()?;
    let mut found = None;
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(':')?;
        // Folded lines and bare line ends are read in more than one way.
        if line.starts_with([' ', '\t']) || line.contains(['\r', '\n']) || name.trim() != name {
            return None;
        }
        match name.to_ascii_lowercase().as_str() {
            "content-disposition" if found.is_some() => return None,
            "content-disposition" => found = Some(value.trim()),
            "content-transfer-encoding" => return None,
            _ => {}
        }
    }
    let mut rest = found?.strip_prefix("form-data")?;
    let (mut name, mut file) = (None, false);
    while !rest.trim().is_empty() {
        let parameter = rest.trim_start().strip_prefix(';')?.trim_start();
        let (key, value) = parameter.split_once('=')?;
        // What browsers and SDKs write; a backslash would need to be read as each server does.
        let (value, after) = value.strip_prefix('"')?.split_once('"')?;
        match key {
            "name" if name.is_none() && !value.contains('\\') => name = Some(value),
            "filename" if !file && !value.contains('\\') => file = true,
            // An extended form of either would be preferred by some.
            _ => return None,
        }
        rest = after;
    }
    Some((name?, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)]) -> String {
        let part = |(head, value): &(&str, &str)| format!("--x\r\n{head}\r\n\r\n{value}\r\n");
        format!("{}--x--\r\n", fields.iter().map(part).collect::<String>())
    }

    const MODEL: &str = "Content-Disposition: form-data; name=\"model\"";
    const FILE: &str = "content-disposition: form-data; name=\"file\"; filename=\"a;b.mp3\"\r\nContent-Type: audio/mpeg";

    #[test]
    fn finds_fields_and_where_they_stand() {
        let body = form(&[(FILE, "\r\n--\r\n--y\0"), (MODEL, "whisper-1"), (MODEL, "")]);
        let parts = parts(body.as_bytes(), "x").unwrap();
        let found: Vec<_> = parts.iter().map(|part| (part.name, &body[part.value.clone()])).collect();
        assert_eq!(found, [("file", "\r\n--\r\n--y\0"), ("model", "whisper-1"), ("model", "")]);
        assert_eq!(super::parts(b"--x--", "x"), Ok(vec![]));
    }

    #[test]
    fn refuses_what_could_be_read_two_ways() {
        for head in [
            "Content-Disposition: form-data; name=model",
            "Content-Disposition: form-data; name=\"mo\\del\"",
            "Content-Disposition: form-data; name=\"a\"; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"; name*=utf-8''model",
            "Content-Disposition: attachment; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"model\"",
            "X: y",
            "Content-Disposition: form-data; name=\"x\"; NAME*=\"utf-8''model\"",
            "Content-Disposition: form-data; name=\"x\"\r\n ; name*=utf-8''model",
            "X: y\nContent-Disposition: form-data; name=\"model\"\r\nContent-Disposition: form-data; name=\"x\"",
            "Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: base64",
            "Content-Disposition : form-data; name=\"model\"",
        ] {
            assert!(parts(form(&[(head, "v")]).as_bytes(), "x").is_err(), "{head}");
        }
        let sound = form(&[(MODEL, "m")]);
        for body in [
            format!("preamble\r\n{sound}"),
            format!("{sound}epilogue"),
            sound.replace("\r\n", "\n"),
            sound.replacen("--x\r\n", "--x \r\n", 1),
            sound.trim_end_matches("--x--\r\n").to_owned(),
            "--x\r\n\r\n--x--".to_owned(),
            form(&[(FILE, &format!("a\n--x\n{MODEL}\n\nother\n--x--"))]),
            form(&[(FILE, &format!("a\r--x\r{MODEL}"))]),
            form(&[(FILE, "--x")]),
        ] {
            assert!(parts(body.as_bytes(), "x").is_err(), "{body:?}");
        }
        for at in 0..sound.len() - 2 {
            assert!(parts(&sound.as_bytes()[..at], "x").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn bounds_fields_and_heads() {
        let many = |count: usize| form(&vec![(MODEL, "m"); count]);
        assert!(parts(many(FIELDS_MAX).as_bytes(), "x").is_ok() && parts(many(FIELDS_MAX + 1).as_bytes(), "x").is_err());
        let long = |length: usize| form(&[(&format!("{MODEL}\r\nX: {}", "y".repeat(length - MODEL.len() - 5)), "m")]);
        assert!(parts(long(HEAD_BYTES_MAX).as_bytes(), "x").is_ok() && parts(long(HEAD_BYTES_MAX + 1).as_bytes(), "x").is_err());
    }

    #[test]
    fn reads_boundaries() {
        for (content_type, want) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; Boundary=\"a b\"", Some("a b")),
            ("multipart/form-data; boundary=a; boundary*=utf-8''b", None),
            ("multipart/form-data; boundary=\"a\\b\"", None),
            ("multipart/form-data; boundary=\"a", None),
            ("multipart/form-data; boundary= a", None),
            ("multipart/form-data; charset=utf-8; boundary=a", None),
            ("multipart/form-data; boundary=a; boundary=b", None),
            ("multipart/form-data", None),
            ("multipart/mixed; boundary=a", None),
            ("application/json", None),
        ] {
            assert_eq!(boundary(content_type), want, "{content_type}");
        }
    }
}
