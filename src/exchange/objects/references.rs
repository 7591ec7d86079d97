//! The objects that a request body names.

use crate::error::Error;
use crate::provider::collections;
use memchr::memmem::Finder;
use once_cell::sync::Lazy;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Objects that one request may name; more are refused.
pub const REFERENCES_MAX: usize = 256;

/// Names of fields, at any depth, whose values are ids of objects.
const REFERENCE_FIELDS: &[&str] = &[
    "file_id",
    "file_ids",
    "input_file_id",
    "training_file",
    "validation_file",
    "vector_store_id",
    "vector_store_ids",
    "container",
    "container_id",
    "batch_id",
    "upload_id",
    "thread_id",
    "assistant_id",
    "fileUri",
    "file_uri",
    "cachedContent",
    "cached_content",
    "fileSearchStoreNames",
    "file_search_store_names",
];

/// The ids of objects that a JSON body names.
pub(super) fn references(body: &[u8]) -> Result<Vec<String>, Error> {
    let mut ids = vec![];
    if may_refer(body) {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        // What is not JSON was refused before, or is a form.
        let _ = Walk { ids: &mut ids, collects: false }.deserialize(&mut deserializer);
    }
    if ids.len() > REFERENCES_MAX {
        return Err(Error::BadField { name: "file_id", want: "in fewer places: the request names too many objects" });
    }
    Ok(ids)
}

/// False if a body names no object for certain.
fn may_refer(body: &[u8]) -> bool {
    static FIELDS: Lazy<Vec<Finder<'static>>> =
        Lazy::new(|| REFERENCE_FIELDS.iter().map(|field| Finder::new(&format!("\"{field}\"")).into_owned()).collect());
    static ESCAPE: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\\u00"));
    // A key may be escaped; of its letters, digits and `_` one at least. Escapes of other characters are frequent in texts.
    let letter = |at: usize| {
        body.get(at + 4..at + 6).is_some_and(|hex| {
            let code = std::str::from_utf8(hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
            code.is_some_and(|code| code.is_ascii_alphanumeric() || code == b'_')
        })
    };
    FIELDS.iter().any(|field| field.find(body).is_some()) || ESCAPE.find_iter(body).any(letter)
}

/// Collects the strings under reference fields.
struct Walk<'w> {
    ids: &'w mut Vec<String>,
    collects: bool,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();
    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.collects && self.ids.len() <= REFERENCES_MAX {
            // Google's names and addresses of files end in the id.
            let id = text.trim().rsplit('/').next().unwrap_or_default();
            if collections::is_id(id) && !self.ids.iter().any(|known| known == id) {
                self.ids.push(id.to_owned());
            }
        }
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Walk { ids: self.ids, collects: self.collects })?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let collects = REFERENCE_FIELDS.contains(&&*key) || (self.collects && key == "id");
            map.next_value_seed(Walk { ids: self.ids, collects })?;
        }
        Ok(())
    }
}
