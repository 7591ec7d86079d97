//! Objects that a provider keeps for a client (see [`crate::provider::collections`]): each belongs to the key that created it, at
//! the upstream where it was created. Others get 404, lists show a key its own objects, and requests that name an object go to
//! its upstream.

pub(super) mod lists;
mod references;

use super::attempt::Attempt;
use super::stored_response::{StoreHandle, StoredObject, owner};
use super::{Asked, Exchange};
use crate::config::{Config, Upstream};
use crate::error::Error;
use crate::json::Want::{self, Fields, Items, Take};
use crate::json::{Scanner, Visit, text};
use crate::provider::collections::{self, Place};
use crate::route::{Destination, Head};
use http::Method;
use lists::ListFilter;
use references::{References, locate, may_refer};

/// Further objects of the same owner that one response may name; more are not known to the gateway.
const YIELDS_MAX: usize = 64;

/// More of an id than this is not read: it has escapes, or is longer than any.
const RAW_ID_BYTES_MAX: usize = collections::ID_BYTES_MAX * 2;

/// The name under which an object is stored. Names of responses and conversations have no slash.
pub fn object_key(upstream: &str, id: &str) -> String {
    format!("{upstream}/{id}")
}

/// The name under which the results of a batch are stored: of other files nothing is billed.
pub fn results_key(upstream: &str, id: &str) -> String {
    format!("{upstream}/results/{id}")
}

/// How an exchange treats the objects in its response.
#[derive(Clone, Debug, Default)]
pub(super) enum ObjectAccess {
    #[default]
    None,
    /// Reads a list, which is filtered to the objects of the key.
    List(StoreHandle),
    /// Creates, reads or changes an object: its response may name new ones.
    Object,
}

/// The objects that a path and a body name.
pub(super) struct Referenced {
    /// The only upstream that has the objects.
    pub(super) upstream: Option<usize>,
    pub(super) access: ObjectAccess,
    /// The path leads to results of a batch, to be billed item by item.
    pub(super) results: bool,
}

/// Checks the objects that a request names.
///
/// # Errors
/// [`Error::UnknownObject`] if one belongs to another key, or to nobody known here; [`Error::AnswersUnknown`].
pub(super) fn check(body: &[u8], destination: &Destination, head: &Head<'_>, config: &Config, asked: &Asked) -> Result<Referenced, Error> {
    let mut found = Referenced { upstream: None, access: ObjectAccess::None, results: false };
    let (mut collection, mut upload) = (false, false);
    if let Destination::Pass { mount, path } = destination {
        let upstream = config.upstreams.get(*mount).ok_or(Error::Internal)?;
        let below = path.strip_prefix(upstream.base_path.as_str()).unwrap_or(path);
        let place = collections::place(below).map_err(|_| Error::BadPath)?;
        (collection, upload) = (place.is_some(), collections::is_upload(path));
        match place {
            None => {}
            Some(Place::Collection) if *head.method == Method::POST || *head.method == Method::PUT => found.access = ObjectAccess::Object,
            Some(Place::Collection) if asked.key.is_some() => found.access = ObjectAccess::List(asked.memory.clone()),
            Some(Place::Collection) => {}
            Some(Place::Object { id, rest }) => {
                let reads = matches!(*head.method, Method::GET | Method::HEAD);
                let shared = reads && upstream.shares(id);
                if !shared {
                    own(id, upstream, head, asked)?;
                }
                // Contents are a client's own text, and say nothing about objects. A shared object belongs to nobody.
                if !shared && matches!(rest, "" | "/cancel" | "/complete") {
                    found.access = ObjectAccess::Object;
                }
                if let Some(of) = upstream.provider.batch.and_then(|batch| batch.results(below)) {
                    // A file that a client uploaded could state any usage.
                    let of_file = asked.memory.find(&results_key(&upstream.name, of))?.is_some();
                    let of_batch = asked.memory.find(&object_key(&upstream.name, of))?.is_some() && !below.starts_with("/files/");
                    found.results = of_file || of_batch;
                }
            }
        }
    }
    let keeps = |upstream: &Upstream| upstream.keeps_objects;
    if asked.key.is_none() || !config.upstreams.iter().any(keeps) {
        return Ok(found);
    }
    let references = References::of(body, head.headers, collection, upload)?;
    if collection && references.account {
        return Err(Error::BadField {
            name: "type",
            want: "a source of your own data: stored responses of the account belong to several clients",
        });
    }
    let candidates = config.upstreams.iter().enumerate().filter(|(at, _)| destination.mount().is_none_or(|mount| mount == *at));
    for reference in &references.ids {
        let Some(at) = locate(reference, candidates.clone(), &asked.memory, |upstream| owner(asked.key.as_deref(), upstream, head))? else {
            continue;
        };
        if found.upstream.is_some_and(|other| other != at) {
            return Err(Error::UnknownObject { id: reference.id.clone() });
        }
        found.upstream = Some(at);
    }
    Ok(found)
}

/// Checks that an object at an upstream belongs to the client.
fn own(id: &str, upstream: &Upstream, head: &Head<'_>, asked: &Asked) -> Result<(), Error> {
    let found = asked.memory.find(&object_key(&upstream.name, id))?;
    let allowed = match found {
        Some(object) => object.owner == owner(asked.key.as_deref(), upstream, head),
        // Without keys all clients are one, and the object may have been created elsewhere.
        None => asked.key.is_none(),
    };
    if allowed { Ok(()) } else { Err(Error::UnknownObject { id: id.to_owned() }) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Id,
    Name,
    BatchId,
    /// Results of a batch.
    Results,
    /// Another object of the same owner.
    Other,
    /// The same, by a name of Google's.
    OtherName,
    List,
    Item,
    Ignored,
}

const OBJECT: &[(&str, Want<Which>)] = &[
    ("id", Take(Which::Id)),
    ("name", Take(Which::Name)),
    // xAI's name.
    ("batch_id", Take(Which::BatchId)),
    ("output_file_id", Take(Which::Results)),
    ("error_file_id", Take(Which::Results)),
    // Mistral's names.
    ("output_file", Take(Which::Results)),
    ("error_file", Take(Which::Results)),
    ("result_files", Items(Which::Ignored, &Take(Which::Other))),
    ("thread_id", Take(Which::Other)),
    ("file", Fields(&[("id", Take(Which::Other)), ("name", Take(Which::OtherName))])),
];
static OBJECT_ROOT: Want<Which> = Fields(OBJECT);

/// Ids in an object of a response.
#[derive(Clone, Debug, Default)]
struct Ids {
    own: Option<String>,
    named: Option<String>,
    results: Vec<String>,
    others: Vec<String>,
    raw: Vec<u8>,
}

impl Ids {
    fn take(&mut self, which: Which) {
        let Some(text) = text::decode(&self.raw) else { return };
        // Google's names are `files/abc`. Elsewhere a client names its objects as it likes.
        let named = || text.split_once('/').filter(|(collection, _)| collections::is_named(collection)).map(|(_, id)| id);
        let id = if matches!(which, Which::Name | Which::OtherName) { named() } else { text.rsplit('/').next() };
        let Some(id) = id.filter(|id| collections::is_id(id)).map(str::to_owned) else { return };
        match which {
            Which::Id => self.own = Some(id),
            Which::Name => self.named = Some(id),
            Which::BatchId => self.named = self.named.take().or(Some(id)),
            Which::Results if self.results.len() < YIELDS_MAX => self.results.push(id),
            Which::Other | Which::OtherName if self.others.len() < YIELDS_MAX => self.others.push(id),
            _ => {}
        }
    }

    /// The object itself. Google's have names in place of ids, and xAI's batches a field of another name.
    fn object(&self) -> Option<&str> {
        self.own.as_deref().or(self.named.as_deref())
    }
}

impl Visit<Which> for Ids {
    fn begin(&mut self, which: Which, _: u64, _: u8) {
        if !matches!(which, Which::Ignored | Which::Item) {
            self.raw.clear();
        }
    }
    fn bytes(&mut self, _: Which, piece: &[u8]) {
        if self.raw.len() <= RAW_ID_BYTES_MAX {
            self.raw.extend_from_slice(piece.get(..piece.len().min(RAW_ID_BYTES_MAX)).unwrap_or_default());
        }
    }
    fn end(&mut self, which: Which, _: u64) {
        self.take(which);
    }
}

/// Reads the response to a request about an object.
#[derive(Debug)]
pub(super) struct ObjectReader {
    scanner: Scanner<Which>,
    ids: Ids,
}

impl ObjectReader {
    pub(super) fn new() -> Self {
        Self { scanner: Scanner::new(&OBJECT_ROOT), ids: Ids::default() }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        // Contents of files are no JSON, or no objects.
        let _ = self.scanner.push(chunk, &mut self.ids);
    }
}

/// The objects that an object names: they belong to its owner.
fn yields(ids: &Ids, upstream: &str, owner: Option<&str>) -> Vec<StoredObject> {
    let files = ids.results.iter().chain(&ids.others).map(|id| object_key(upstream, id));
    files.chain(ids.results.iter().map(|id| results_key(upstream, id))).map(|id| StoredObject::owned(id, upstream, owner)).collect()
}

impl Exchange {
    /// Checks the objects that a message on a WebSocket names.
    ///
    /// # Errors
    /// [`Error::UnknownObject`] if one is not the client's, or not at the connection's upstream; [`Error::AnswersUnknown`].
    pub fn check_objects(&self, message: &[u8], store: &StoreHandle) -> Result<(), Error> {
        let Some(upstream) = self.upstream().filter(|upstream| upstream.keeps_objects && self.key.is_some()) else { return Ok(()) };
        if may_refer(message) {
            for reference in &References::of_json(message)?.ids {
                locate(reference, std::iter::once((self.route.upstream, upstream)), store, |_| self.owner())?;
            }
        }
        Ok(())
    }

    /// Prepares to read the response to a request about objects.
    pub(super) fn read_objects(&mut self, status: u16, encoded: bool) {
        let Some(attempt) = self.attempt.as_mut().filter(|_| status < 300) else { return };
        match &self.access {
            ObjectAccess::None => {}
            ObjectAccess::List(store) => attempt.list = Some(Box::new(ListFilter::new(store.clone(), encoded))),
            ObjectAccess::Object if encoded => {}
            ObjectAccess::Object => attempt.object = Some(Box::new(ObjectReader::new())),
        }
    }

    /// Objects that a whole response says the client owns.
    pub(super) fn take_objects(&mut self) -> Vec<StoredObject> {
        let keeps = self.upstream().is_some_and(|upstream| upstream.keeps_objects);
        let pending = |attempt: &Attempt| attempt.object.is_some() || !attempt.learned.is_empty() || keeps;
        if !self.attempt.as_deref().is_some_and(pending) {
            return vec![];
        }
        let owner = self.owner();
        let upstream = self.upstream().map(|upstream| upstream.name.clone()).unwrap_or_default();
        let Some(attempt) = &mut self.attempt else { return vec![] };
        let object = |id: &str| StoredObject::owned(object_key(&upstream, id), &upstream, owner.as_deref());
        let mut stored = std::mem::take(&mut attempt.learned);
        if let Some(reader) = attempt.object.take_if(|reader| reader.scanner.is_done()) {
            stored.extend(reader.ids.object().map(object));
            stored.extend(yields(&reader.ids, &upstream, owner.as_deref()));
        }
        // Containers that server-side tools created, and a chat completion that is stored.
        let containers = attempt.meter.as_mut().filter(|_| keeps).map(|meter| meter.take_containers()).unwrap_or_default();
        stored.extend(containers.iter().map(|id| object(id)));
        let completion = attempt.meter.as_ref().filter(|_| keeps && attempt.status < 300).map(|meter| &meter.found().id);
        if let Some(id) = completion.filter(|id| collections::is_id(id))
            && std::mem::take(&mut self.keeping.stores_chat)
        {
            stored.push(object(id));
        }
        stored
    }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
