//! Paths: what is refused outright, and what a mount leaves.

use super::choose::off;
use super::{Error, Named};
use crate::config::{Config, PathStyle, Upstream};
use crate::dialect::{Dialect, Endpoint};
use crate::provider;

/// Longest path that is looked at.
pub const PATH_BYTES_MAX: usize = 4096;

/// Refuses segments that could leave their place, in plain or encoded form.
pub fn check(path: &str) -> Result<(), Error> {
    // Nothing is encoded, and no segment begins with a point: nothing leaves its place.
    let plain = |byte: u8| byte != b'%' && byte != b'\\' && !byte.is_ascii_control();
    let is_plain = path.bytes().fold(true, |all, byte| all & plain(byte)) && !path.as_bytes().windows(2).any(|pair| pair == b"/.");
    if is_plain && path.len() <= PATH_BYTES_MAX && path.starts_with('/') {
        return Ok(());
    }
    let mut before = "";
    let leaves = |segment| {
        let plain = percent_encoding::percent_decode_str(segment).collect::<Vec<u8>>();
        // Names of resources at AWS have slashes; they stay one segment on the way up, too.
        let parts = plain.split(|byte| *byte == b'/');
        let slashes = std::mem::replace(&mut before, segment) != "model" && plain.contains(&b'/');
        slashes
            || parts.into_iter().any(|part| matches!(part, b"." | b".."))
            || plain.iter().any(|byte| *byte == b'\\' || byte.is_ascii_control())
    };
    if path.len() > PATH_BYTES_MAX || !path.starts_with('/') || path.split('/').any(leaves) {
        return Err(Error::BadPath);
    }
    Ok(())
}

/// The upstream mounted at the first segment, and the path below it (with its slash). A known provider that is not
/// configured is told apart from a path that means nothing.
pub fn mount<'a>(path: &'a str, query: Option<&str>, config: &Config) -> Result<(Option<usize>, &'a str), Error> {
    // Azure's own paths start with the name of another provider.
    if path.starts_with("/openai/deployments/") || (path.starts_with("/openai/") && has_parameter(query, "api-version")) {
        let azure = config.upstreams.iter().position(|upstream| upstream.provider.id == "azure");
        let at = azure.ok_or_else(|| provider::find("azure").map_or(Error::Internal, off))?;
        return Ok((Some(at), path));
    }
    let inner = path.strip_prefix('/').unwrap_or(path);
    let (first, rest) = match inner.find('/') {
        Some(at) => inner.split_at(at),
        None => (inner, ""),
    };
    match (config.upstream(first), provider::find(first)) {
        (Some(at), _) => Ok((Some(at), rest)),
        (None, Some(provider)) => Err(off(provider)),
        (None, None) => Ok((None, path)),
    }
}

/// What a path names besides its endpoint.
pub fn named(endpoint: Endpoint, path: &str) -> Option<Named> {
    let model = percent_encoding::percent_decode_str(endpoint.model_in(path)?).decode_utf8().ok()?.into_owned();
    let first = path.split('/').nth(1).unwrap_or_default();
    let is_version = first.strip_prefix('v').is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()));
    let (style, provider) = match endpoint.dialect() {
        Dialect::Generate | Dialect::Messages if endpoint.has_model_in_path() => {
            let style = if is_version { PathStyle::Version(first.to_owned()) } else { PathStyle::Usual };
            (style, path.contains("/publishers/").then_some("vertex"))
        }
        Dialect::Converse | Dialect::Invoke => (PathStyle::Usual, None),
        _ => (PathStyle::Deployment, None),
    };
    Some(Named { model, style, provider })
}

/// True if a query has a parameter of this name.
pub fn has_parameter(query: Option<&str>, name: &str) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some(name)))
}

/// A path below a mount, relative to the upstream's base path: clients put their own idea of it in front.
pub fn below_base<'a>(rest: &'a str, upstream: &Upstream) -> &'a str {
    let own = rest.strip_prefix(upstream.base_path.as_str()).filter(|below| below.is_empty() || below.starts_with('/'));
    own.or_else(|| rest.strip_prefix("/v1").filter(|below| below.starts_with('/'))).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_paths_that_leave_their_place() {
        for bad in ["/a/../b", "/a/%2e%2E/b", "/./a", "/a%2fb", "/a%5cb", "a", "/a%00", "/a/%2e", "/a/b%2Fc", "/model/a%2F..%2Fb/converse"]
        {
            assert_eq!(check(bad), Err(Error::BadPath), "{bad}");
        }
        for good in [
            "/",
            "/openai/v1/chat/completions",
            "/a.b/..c",
            "/model/x%3A0/converse",
            "/model/arn%3Aaws%3A%3Ainference-profile%2Fus.x/converse",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert_eq!(check(&format!("/{}", "a".repeat(PATH_BYTES_MAX))), Err(Error::BadPath));
    }
}
