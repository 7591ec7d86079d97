//! Objects that providers keep for an account: files, batches, vector stores. Each belongs to the gateway key that created it.

/// Paths of collections below a provider's base path. An object is `{path}/{id}`, and everything below it belongs to it.
/// <https://platform.openai.com/docs/api-reference>, <https://platform.claude.com/docs/en/api>,
/// <https://ai.google.dev/api>, <https://docs.mistral.ai/api>, <https://docs.together.ai/reference>.
pub const COLLECTIONS: &[&str] = &[
    "/files",
    "/uploads",
    "/batches",
    "/batch/jobs",
    "/messages/batches",
    "/vector_stores",
    "/containers",
    "/fine_tuning/jobs",
    "/fine-tunes",
    "/assistants",
    "/threads",
    "/evals",
    "/videos",
    "/skills",
    "/chat/completions",
    "/chatkit/sessions",
    "/chatkit/threads",
    "/cachedContents",
    "/tunedModels",
    "/corpora",
    "/fileSearchStores",
    "/agents",
    "/libraries",
];

/// Paths in a collection that create an object or generate something, and are no object themselves.
const VERBS: &[(&str, &str)] =
    &[("/videos", "edits"), ("/videos", "extensions"), ("/videos", "characters"), ("/agents", "completions"), ("/threads", "runs")];

/// Collections of Google's, whose objects have names like `files/abc`: <https://ai.google.dev/api/files>.
const NAMED: &[&str] = &["files", "batches", "operations", "cachedContents", "tunedModels", "corpora", "fileSearchStores"];

/// A longer id belongs to no provider.
pub const ID_BYTES_MAX: usize = 256;

/// The collection or object that a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'p> {
    /// A collection: reading it lists objects, posting to it creates one.
    Collection,
    /// An object, or something below it, at `rest`.
    Object { id: &'p str, rest: &'p str },
}

/// A path that only some servers take for one in a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherSpelling;

/// The collection or object that a path names; `None` if it is not in a collection. Versions and the like may stand before the collection.
///
/// # Errors
/// If the path is spelled so that a server may take it for one in a collection and the gateway would not: percent-encoded,
/// in another case, with empty segments or matrix parameters.
pub fn place(path: &str) -> Result<Option<Place<'_>>, OtherSpelling> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let starts = || path.match_indices('/').filter_map(|(at, _)| path.get(at..));
    let inside = |from: &'_ str| COLLECTIONS.iter().find_map(|collection| within(from, collection).map(str::len));
    if let Some(rest) = starts().find_map(inside).and_then(|length| path.get(path.len() - length..)) {
        let before = path.get(..path.len() - rest.len()).unwrap_or_default();
        let Some(inner) = rest.strip_prefix('/') else {
            return if before == plain_case(before) { Ok(Some(Place::Collection)) } else { Err(OtherSpelling) };
        };
        if before == plain_case(before) && VERBS.iter().any(|(collection, verb)| before.ends_with(collection) && inner == *verb) {
            return Ok(Some(Place::Collection));
        }
        let (id, rest) = inner.split_at(inner.find('/').unwrap_or(inner.len()));
        let (id, rest) = split_verb(id, rest);
        let fits = is_id(id) && rest.split('/').skip(1).all(is_id) && before == plain_case(before);
        return if fits { Ok(Some(Place::Object { id, rest })) } else { Err(OtherSpelling) };
    }
    let plain = plain(path);
    let hidden = plain.match_indices('/').filter_map(|(at, _)| plain.get(at..));
    let is_collection = |from: &str| COLLECTIONS.iter().any(|collection| within(from, &collection.to_ascii_lowercase()).is_some());
    if hidden.into_iter().any(is_collection) { Err(OtherSpelling) } else { Ok(None) }
}

/// True if a pattern of an allow-list matches a path in a collection.
pub fn matches_any(pattern: &str) -> bool {
    let start = pattern.trim_end_matches('*').to_ascii_lowercase();
    let meets = |collection: &&str| {
        collection.to_ascii_lowercase().starts_with(&start) || within(&start, &collection.to_ascii_lowercase()).is_some()
    };
    COLLECTIONS.iter().any(meets)
}

/// Splits a verb of Google's off an id: `abc:download`. The rest is then `/:`, which is below the object. Other ids may have colons,
/// followed by no such word.
fn split_verb<'p>(id: &'p str, rest: &'p str) -> (&'p str, &'p str) {
    const GOOGLE_VERBS: &[&str] =
        &["cancel", "delete", "download", "importFile", "query", "uploadToFileSearchStore", "generateContent", "transferOwnership"];
    match id.split_once(':') {
        Some((id, verb)) if rest.is_empty() && GOOGLE_VERBS.contains(&verb) => (id, "/:"),
        _ => (id, rest),
    }
}

/// True for a collection of Google's.
pub fn is_named(collection: &str) -> bool {
    NAMED.contains(&collection)
}

/// True if the body of a request to this path is a file: <https://ai.google.dev/api/files#method:-media.upload>.
pub fn is_upload(path: &str) -> bool {
    path.starts_with("/upload/")
}

fn within<'p>(path: &'p str, collection: &str) -> Option<&'p str> {
    path.strip_prefix(collection).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path as the most lenient server reads it: decoded, without matrix parameters and empty segments, in lower case.
pub fn plain(path: &str) -> String {
    plain_case(path).to_ascii_lowercase()
}

fn plain_case(path: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().replace('\\', "/");
    let segments = decoded.split('/').map(|segment| segment.split(';').next().unwrap_or_default().trim());
    segments.filter(|segment| !segment.is_empty()).flat_map(|segment| ["/", segment]).collect()
}

/// True for an id as providers make them.
pub fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= ID_BYTES_MAX && id.chars().all(is_id_character)
}

/// True for a character of an id.
pub fn is_id_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.' | ':')
}

/// How the ids of objects begin at providers that mark them.
const PREFIXES: &[&str] = &[
    "file-",
    "file_",
    "vs_",
    "cntr_",
    "container_",
    "batch_",
    "msgbatch_",
    "upload_",
    "assistant-",
    "asst_",
    "thread_",
    "ftjob-",
    "skill_",
    "video_",
];

/// True if a text is an id of an object by its looks.
pub fn looks_like_id(text: &str) -> bool {
    is_id(text) && PREFIXES.iter().any(|prefix| text.len() > prefix.len() && text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_collections_and_their_objects() {
        for (path, want) in [
            ("/files", Some(Place::Collection)),
            ("/files/", Some(Place::Collection)),
            ("/files/file-1", Some(Place::Object { id: "file-1", rest: "" })),
            ("/files/file-1/content", Some(Place::Object { id: "file-1", rest: "/content" })),
            ("/fine_tuning/jobs/ftjob-1/events", Some(Place::Object { id: "ftjob-1", rest: "/events" })),
            ("/messages/batches/msgbatch_1/results", Some(Place::Object { id: "msgbatch_1", rest: "/results" })),
            ("/v1beta/files/abc", Some(Place::Object { id: "abc", rest: "" })),
            ("/openai/batches", Some(Place::Collection)),
            ("/vector_stores/vs_1/files/file-1", Some(Place::Object { id: "vs_1", rest: "/files/file-1" })),
            ("/models", None),
            ("/filesystem/a", None),
            ("/fine_tuning/checkpoints", None),
        ] {
            assert_eq!(place(path), Ok(want), "{path}");
        }
    }

    #[test]
    fn other_spellings_of_a_collection_are_refused() {
        for path in [
            "/Files/file-1",
            "//files/file-1",
            "/files//file-1",
            "/%66iles/file-1",
            "/files;x=1/file-1/content",
            "/files%2Ffile-1",
            "/files/file-1;v=2/content",
            "/files/file%2d1",
            "/files\\file-1",
            "/messages//batches/b",
            "/ files/x",
            "/v1;a/files/x",
            "/v1//Files/x",
        ] {
            assert_eq!(place(path), Err(OtherSpelling), "{path}");
        }
        let id = |length: usize| format!("/files/{}", "f".repeat(length));
        assert!(place(&id(ID_BYTES_MAX)).is_ok() && place(&id(ID_BYTES_MAX + 1)).is_err());
    }
}
