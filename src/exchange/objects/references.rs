//! The objects that a request body names.

use crate::config::Upstream;
use crate::error::Error;
use crate::exchange::heads::is_encoded;
use crate::exchange::stored_response::StoreHandle;
use crate::provider::collections;
use crate::route::form;
use http::{HeaderMap, header};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// Objects that one request may name; more are refused. Providers take up to 500 files in one vector store batch:
/// <https://platform.openai.com/docs/api-reference/vector-stores-file-batches>.
pub const REFERENCES_MAX: usize = 2000;

/// Names of fields, at any depth, whose values are ids of objects.
const REFERENCE_FIELDS: &[&str] = &[
    "file_id",
    "file_ids",
    "input_file_id",
    "input_files",
    "training_file",
    "validation_file",
    "validation_files",
    "vector_store_id",
    "vector_store_ids",
    "container",
    "container_id",
    "batch_id",
    "upload_id",
    "thread_id",
    "assistant_id",
    "agent_id",
    "skill_id",
    "library_ids",
    "video",
    "fileName",
    "fileUri",
    "file_uri",
    "cachedContent",
    "cached_content",
    "fileSearchStoreNames",
    "file_search_store_names",
];

/// Fields whose values are a client's own data: schemas, labels, and arguments and results of its tools.
const CLIENT_DATA: &[&str] = &[
    "metadata",
    "parameters",
    "parametersJsonSchema",
    "properties",
    "input_schema",
    "inputSchema",
    "json_schema",
    "responseSchema",
    "response_schema",
    "responseJsonSchema",
    "functionCall",
    "function_call",
    "functionResponse",
    "function_response",
    "toolUse",
];

/// Names an object by the field `id` beside it: <https://platform.openai.com/docs/api-reference/evals/createRun>.
const ID_TYPES: &[&str] = &["file_id", "file"];
/// A data source of an evaluation that selects among all stored responses of the account, whoever created them.
const ACCOUNT_SOURCES: &[&str] = &["stored_completions", "responses"];

/// An object that a body names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::exchange) struct Reference {
    pub(super) id: String,
    /// False if it may be a text of the client's own.
    pub(super) certain: bool,
}

/// The objects that a body names.
#[derive(Debug, Default)]
pub(in crate::exchange) struct References {
    pub(super) ids: Vec<Reference>,
    /// It selects among the stored responses of the whole account.
    pub(super) account: bool,
}

impl References {
    /// Reads the body of a request. `collection`: the path is in a collection of objects; `upload`: the body is a file.
    ///
    /// # Errors
    /// If what the body names cannot be read: it would reach the provider unchecked.
    pub(super) fn of(body: &[u8], headers: &HeaderMap, collection: bool, upload: bool) -> Result<Self, Error> {
        let encoded = is_encoded(headers);
        let kind = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
        if form::is_multipart(kind) {
            return Self::of_form(body, kind, collection && !upload);
        }
        if collection && !upload && !body.trim_ascii().is_empty() {
            return if encoded { Err(Error::BadJson { why: "it is compressed" }) } else { Self::of_json(body) };
        }
        if upload || !may_refer(body) { Ok(Self::default()) } else { Self::of_json(body) }
    }

    /// Reads a JSON body.
    ///
    /// # Errors
    /// If it is no JSON, or names too many objects.
    pub(in crate::exchange) fn of_json(body: &[u8]) -> Result<Self, Error> {
        let mut found = Self::default();
        let read = found.walk(body, false);
        read.map_err(|_| Error::BadJson { why: "it names objects such as files, and has a text or a number that cannot be read" })?;
        found.bounded()
    }

    fn of_form(body: &[u8], kind: &[u8], strict: bool) -> Result<Self, Error> {
        let mut found = Self::default();
        let boundary = std::str::from_utf8(kind).ok().and_then(form::boundary);
        let parts = boundary.ok_or("its content type does not state one plain boundary").and_then(|boundary| form::parts(body, boundary));
        let parts = match parts {
            Ok(parts) => parts,
            Err(why) if strict => return Err(Error::BadForm { why }),
            Err(_) => return Ok(found),
        };
        for part in parts.iter().filter(|part| !part.file) {
            // `file_ids[]` and `video[id]` are usual spellings of lists and objects.
            let name = part.name.split('[').next().unwrap_or_default();
            let value = body.get(part.value.clone()).unwrap_or_default();
            if REFERENCE_FIELDS.contains(&name) {
                // A list or an object may be in JSON.
                if found.walk(value, true).is_err() {
                    found.add(std::str::from_utf8(value).map_err(|_| Error::BadForm { why: "an id is not text" })?);
                }
            }
        }
        found.bounded()
    }

    fn walk(&mut self, json: &[u8], collects: bool) -> serde_json::Result<()> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        Walk { found: self, collects }.deserialize(&mut deserializer)?;
        deserializer.end()
    }

    fn bounded(self) -> Result<Self, Error> {
        if self.ids.len() > REFERENCES_MAX {
            return Err(Error::BadField { name: "file_id", want: "in fewer places: the request names too many objects" });
        }
        Ok(self)
    }

    fn push(&mut self, reference: Reference) {
        if self.ids.len() <= REFERENCES_MAX && !self.ids.contains(&reference) {
            self.ids.push(reference);
        }
    }

    /// Adds the objects that a text names: by an id, or by a name or an address that contains one.
    pub(super) fn add(&mut self, text: &str) {
        let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        let parts: Vec<&str> = text.split(|character| !collections::is_id_character(character)).filter(|part| !part.is_empty()).collect();
        let mut certain = false;
        for (at, part) in parts.iter().enumerate() {
            // Google's names, alone or in an address: `files/abc`, `https://…/v1beta/files/abc`.
            let before = |back: usize| at.checked_sub(back).and_then(|at| parts.get(at)).copied();
            let named = before(1).is_some_and(collections::is_named) && before(2).is_none_or(|version| version.starts_with("v1"));
            if named || collections::looks_like_id(part) {
                certain = true;
                self.push(Reference { id: (*part).to_owned(), certain: true });
            }
        }
        let id = text.trim().rsplit('/').next().unwrap_or_default();
        if !certain && collections::is_id(id) {
            self.push(Reference { id: id.to_owned(), certain: false });
        }
    }
}

/// The upstream among `candidates` that has an object; `None` if the reference is a text of the client's own.
///
/// # Errors
/// [`Error::UnknownObject`] if the object belongs to another client, or to nobody known here; [`Error::AnswersUnknown`].
pub(in crate::exchange) fn locate<'u>(
    reference: &Reference,
    candidates: impl Iterator<Item = (usize, &'u Upstream)> + Clone,
    store: &StoreHandle,
    owner: impl Fn(&Upstream) -> Option<String>,
) -> Result<Option<usize>, Error> {
    if let Some((at, _)) = candidates.clone().find(|(_, upstream)| upstream.shares(&reference.id)) {
        return Ok(Some(at));
    }
    let mut known = false;
    for (at, upstream) in candidates {
        match store.find(&super::object_key(&upstream.name, &reference.id))? {
            Some(object) if object.owner == owner(upstream) => return Ok(Some(at)),
            Some(_) => known = true,
            None => {}
        }
    }
    if known || reference.certain { Err(Error::UnknownObject { id: reference.id.clone() }) } else { Ok(None) }
}

/// False if a body names no object for certain.
pub(in crate::exchange) fn may_refer(body: &[u8]) -> bool {
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
    found: &'w mut References,
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
        if self.collects {
            self.found.add(text);
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
        while list.next_element_seed(Walk { found: self.found, collects: self.collects })?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut types, mut ids, mut arguments) = (vec![], vec![], None);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                key if CLIENT_DATA.contains(&key) => drop(map.next_value::<IgnoredAny>()?),
                "type" => types.push(map.next_value::<Value>()?),
                "id" if !self.collects => ids.push(map.next_value::<Value>()?),
                key => {
                    let start = self.found.ids.len();
                    let collects = REFERENCE_FIELDS.contains(&key) || (self.collects && key == "id");
                    map.next_value_seed(Walk { found: self.found, collects })?;
                    if key == "input" {
                        arguments = Some(start..self.found.ids.len());
                    }
                }
            }
        }
        let is = |kinds: &[&str]| types.iter().filter_map(Value::as_str).any(|kind| kinds.contains(&kind));
        if let ([Value::String(kind)], Some(arguments)) = (types.as_slice(), arguments)
            && kind.ends_with("tool_use")
        {
            self.found.ids.drain(arguments);
        }
        if is(ID_TYPES) {
            ids.iter().filter_map(Value::as_str).for_each(|id| self.found.add(id));
        }
        self.found.account |= is(ACCOUNT_SOURCES);
        Ok(())
    }
}
