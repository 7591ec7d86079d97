//! For whom a request is, beyond the key that asked: the end user it names, and the tags its caller gives it.

use crate::error::Error;
use crate::route::{Head, RequestFields};
use http::{HeaderMap, HeaderName};

/// Names the end user, in place of what the body says.
pub const USER: HeaderName = HeaderName::from_static("x-gateway-user");
/// Tags, separated by commas.
pub const TAGS: HeaderName = HeaderName::from_static("x-gateway-tags");
/// More tags are refused, and longer ones.
pub const TAGS_MAX: usize = 10;
pub const TAG_BYTES_MAX: usize = 64;
/// A longer name of a user is not taken down.
pub const USER_BYTES_MAX: usize = 256;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) user: Option<String>,
    pub(super) tags: Vec<String>,
}

impl Who {
    /// # Errors
    /// [`Error::BadTags`].
    pub(super) fn read(head: &Head<'_>, fields: &RequestFields) -> Result<Self, Error> {
        let named = head.headers.get(&USER).and_then(|user| user.to_str().ok()).map(|user| user.trim().to_owned());
        let user = named.or_else(|| fields.user.clone()).filter(|user| !user.is_empty() && user.len() <= USER_BYTES_MAX);
        Ok(Self { user, tags: tags(head.headers)? })
    }
}

/// The tags in their order, each once.
fn tags(headers: &HeaderMap) -> Result<Vec<String>, Error> {
    let mut tags: Vec<String> = vec![];
    for value in headers.get_all(&TAGS) {
        let value = value.to_str().map_err(|_| Error::BadTags)?;
        for tag in value.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            if tag.len() > TAG_BYTES_MAX {
                return Err(Error::BadTags);
            }
            if !tags.iter().any(|known| known == tag) {
                tags.push(tag.to_owned());
            }
        }
    }
    if tags.len() > TAGS_MAX { Err(Error::BadTags) } else { Ok(tags) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(headers: &[(&str, &str)], body: &str) -> Result<(Option<String>, Vec<String>), Error> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let head = Head { method: &http::Method::POST, path: "/v1/messages", query: None, headers: &map };
        Who::read(&head, &RequestFields::read(body.as_bytes(), None).unwrap()).map(|who| (who.user, who.tags))
    }

    #[test]
    fn the_user_is_whom_the_header_names_or_the_body() {
        for (headers, body, want) in [
            (&[][..], r#"{"user":"u-1"}"#, Some("u-1")),
            (&[], r#"{"metadata":{"user_id":"a\u002f1","user":"x"}}"#, Some("a/1")),
            (&[], r#"{"user":"old","safety_identifier":"s"}"#, Some("s")),
            (&[], r#"{"user":3,"metadata":{"user_id":null}}"#, None),
            (&[("x-gateway-user", " h ")], r#"{"user":"u-1"}"#, Some("h")),
            (&[("x-gateway-user", "")], r#"{"user":"u-1"}"#, None),
        ] {
            assert_eq!(who(headers, body).unwrap().0.as_deref(), want, "{body}");
        }
        let long = |length: usize| format!(r#"{{"user":"{}"}}"#, "u".repeat(length));
        assert!(who(&[], &long(USER_BYTES_MAX)).unwrap().0.is_some() && who(&[], &long(USER_BYTES_MAX + 1)).unwrap().0.is_none());
    }

    #[test]
    fn tags_are_bounded() {
        let tags = |values: &[&str]| who(&values.iter().map(|value| ("x-gateway-tags", *value)).collect::<Vec<_>>(), "{}").map(|who| who.1);
        assert_eq!(tags(&["team-a, batch", " batch,,run=7 "]).unwrap(), ["team-a", "batch", "run=7"]);
        let many = |count: usize| (0..count).map(|at| at.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(tags(&[&many(TAGS_MAX)]).unwrap().len(), TAGS_MAX);
        assert_eq!(tags(&[&many(TAGS_MAX + 1)]), Err(Error::BadTags));
        assert!(tags(&[&"t".repeat(TAG_BYTES_MAX)]).is_ok());
        assert_eq!(tags(&[&"t".repeat(TAG_BYTES_MAX + 1)]), Err(Error::BadTags));
    }
}
