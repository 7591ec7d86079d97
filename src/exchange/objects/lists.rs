//! Lists of objects, of which a client sees its own.

use super::{Ids, OBJECT, Which, object_key, yields};
use crate::exchange::stored_response::{StoreHandle, StoredObject};
use crate::json::Want::{self, Fields, Items, Take};
use crate::json::{Scanner, Splices, Visit, text};
use bytes::{Bytes, BytesMut};
use std::ops::Range;

static ITEM: Want<Which> = Fields(OBJECT);
/// A longer list of objects is answered as an empty one.
pub const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Lists stand under `data`, or at Google under the collection's name.
static LIST_ROOT: Want<Which> = Fields(&[
    ("data", Take(Which::List)),
    ("files", Take(Which::List)),
    ("batches", Take(Which::List)),
    ("operations", Take(Which::List)),
    ("cachedContents", Take(Which::List)),
    ("tunedModels", Take(Which::List)),
    ("corpora", Take(Which::List)),
    ("fileSearchStores", Take(Which::List)),
    ("first_id", Take(Which::Ignored)),
    ("last_id", Take(Which::Ignored)),
]);
static ITEMS_ROOT: Want<Which> = Items(Which::Item, &ITEM);

/// Buffers a list until its end and keeps the objects of one owner.
#[derive(Debug)]
pub struct ListFilter {
    store: StoreHandle,
    body: BytesMut,
    /// The list is too long, or compressed in a way that cannot be read.
    unreadable: bool,
}

/// Stands for a list that cannot be filtered.
pub(super) const EMPTY_LIST: &[u8] = br#"{"object":"list","data":[],"has_more":false}"#;

impl ListFilter {
    pub fn new(store: StoreHandle, encoded: bool) -> Self {
        Self { store, body: BytesMut::new(), unreadable: encoded }
    }

    pub fn push(&mut self, chunk: &[u8]) {
        self.unreadable |= self.body.len() + chunk.len() > LIST_BYTES_MAX;
        if self.unreadable {
            self.body = BytesMut::new();
        } else {
            self.body.extend_from_slice(chunk);
        }
    }

    /// The list with the owner's objects, and what these name.
    pub fn finish(&mut self, upstream: &str, owner: Option<&str>) -> (Bytes, Vec<StoredObject>) {
        let body = std::mem::take(&mut self.body).freeze();
        let filtered = if self.unreadable { None } else { self.filter(&body, upstream, owner) };
        filtered.unwrap_or_else(|| (Bytes::from_static(EMPTY_LIST), vec![]))
    }

    fn filter(&self, body: &Bytes, upstream: &str, owner: Option<&str>) -> Option<(Bytes, Vec<StoredObject>)> {
        let mut spans = Spans::default();
        let (start, length) = (body.len() - body.trim_ascii_start().len(), body.trim_ascii().len());
        if body.get(start) == Some(&b'[') {
            // Some providers answer with the list alone.
            serde_json::from_slice::<serde::de::IgnoredAny>(body).ok()?;
            spans.lists.push(start..start + length);
        } else {
            let mut scanner = Scanner::new(&LIST_ROOT);
            scanner.push(body, &mut spans).ok().filter(|()| scanner.is_done())?;
        }
        if spans.lists.is_empty() {
            return None;
        }
        let (mut splices, mut learned, mut kept_ids) = (Splices::default(), vec![], vec![]);
        for list in spans.lists {
            let raw = body.get(list.clone()).filter(|raw| raw.first() == Some(&b'['))?;
            let mut items = ListItems::default();
            Scanner::new(&ITEMS_ROOT).push(raw, &mut items).ok()?;
            let mut kept = vec![];
            for (span, ids) in items.found {
                let Some(id) = ids.object() else { continue };
                let object = self.store.find(&object_key(upstream, id)).ok()?;
                if object.is_some_and(|object| object.owner.as_deref() == owner) {
                    kept.push(raw.get(span)?);
                    kept_ids.push(id.to_owned());
                    learned.extend(yields(&ids, upstream, owner));
                }
            }
            splices.replace(list, [&b"["[..], &kept.join(&b","[..]), b"]"].concat());
        }
        // The ids of the first and last object are for paging.
        for (first, span) in spans.edges {
            let id = if first { kept_ids.first() } else { kept_ids.last() };
            splices.replace(span, id.map_or_else(|| b"null".to_vec(), |id| text::encode(id)));
        }
        Some((splices.apply(body), learned))
    }
}

#[derive(Default)]
struct Spans {
    start: usize,
    lists: Vec<Range<usize>>,
    edges: Vec<(bool, Range<usize>)>,
}

impl Visit<Which> for Spans {
    fn begin(&mut self, _: Which, at: u64, _: u8) {
        self.start = usize::try_from(at).unwrap_or(usize::MAX);
    }
    fn bytes(&mut self, _: Which, _: &[u8]) {}
    fn end(&mut self, which: Which, at: u64) {
        let span = self.start..usize::try_from(at).unwrap_or(usize::MAX);
        match which {
            Which::List => self.lists.push(span),
            _ => self.edges.push((self.edges.is_empty(), span)),
        }
    }
}

#[derive(Default)]
struct ListItems {
    start: usize,
    ids: Ids,
    found: Vec<(Range<usize>, Ids)>,
}

impl Visit<Which> for ListItems {
    fn begin(&mut self, which: Which, at: u64, first: u8) {
        if which == Which::Item {
            (self.start, self.ids) = (usize::try_from(at).unwrap_or(usize::MAX), Ids::default());
        }
        self.ids.begin(which, at, first);
    }
    fn bytes(&mut self, which: Which, piece: &[u8]) {
        self.ids.bytes(which, piece);
    }
    fn end(&mut self, which: Which, at: u64) {
        match which {
            Which::Item => self.found.push((self.start..usize::try_from(at).unwrap_or(usize::MAX), std::mem::take(&mut self.ids))),
            _ => self.ids.end(which, at),
        }
    }
}
