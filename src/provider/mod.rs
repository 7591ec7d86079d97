//! Providers: the companies that serve models, as plain data. A file each, a line in [`REGISTRY`]; what a table
//! cannot say has no place here.

mod anthropic;
pub mod auth;
mod azure;
mod bedrock;
mod cerebras;
mod cohere;
pub mod collections;
mod deepseek;
mod fireworks;
mod google;
mod groq;
mod mistral;
mod mock;
mod openai;
mod openrouter;
mod perplexity;
mod together;
mod vertex;
mod xai;

use crate::dialect::{Dialect, Endpoint};
use crate::usage::{Convention, Reasoning};

/// Every provider known by name. To add one: its file, its line here, fixtures and prices.
pub const REGISTRY: &[&Provider] = &[
    &openai::OPENAI,
    &anthropic::ANTHROPIC,
    &groq::GROQ,
    &fireworks::FIREWORKS,
    &xai::XAI,
    &perplexity::PERPLEXITY,
    &deepseek::DEEPSEEK,
    &mistral::MISTRAL,
    &openrouter::OPENROUTER,
    &together::TOGETHER,
    &cerebras::CEREBRAS,
    &google::GOOGLE,
    &vertex::VERTEX,
    &bedrock::BEDROCK,
    &azure::AZURE,
    &cohere::COHERE,
    &mock::MOCK,
];

/// The version of Azure's API where deployments stand in paths and nobody names another.
pub const AZURE_API_VERSION: &str = "2024-02-15-preview";

/// The one with this id.
pub fn find(id: &str) -> Option<&'static Provider> {
    REGISTRY.iter().copied().find(|provider| provider.id == id)
}

/// How a request proves who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer …`
    Bearer,
    /// A header that holds the bare key.
    Header(&'static str),
    /// A bearer key where there is one, else an AWS signature.
    Aws,
    None,
}

/// A cloud that hands out credentials for a while to whom it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    Aws,
    Google,
    /// Microsoft's.
    Entra,
}

/// Something of an address that configuration or a variable tells: a region, a resource, a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its key in the configuration, and in braces in the address.
    pub name: &'static str,
    pub variables: &'static [&'static str],
}

/// Whether a stream states its usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamUsage {
    /// Without being asked.
    Always,
    /// When asked by `stream_options.include_usage`.
    OnRequest,
    /// Nobody has said; asking may be answered with a 400, so only configuration turns it on.
    Unknown,
}

/// By what a provider finds a prompt that it has seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheBy {
    /// `cache_control` on blocks (Anthropic).
    Control,
    /// `cachePoint` blocks (Bedrock).
    Point,
    /// `prompt_cache_key` (OpenAI).
    Key,
    /// Headers: one for the key, one for whom it belongs to.
    Headers { key: &'static str, org: Option<&'static str> },
}

/// What becomes of an answer whose caller left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It is cancelled, which stops the provider's meter.
    Cancel,
    /// It is read to its end: the provider bills it all the same.
    Drain,
}

/// Batch jobs: what is asked of many is answered later in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Paths by which jobs and files are managed, below the base path. Nothing is generated there.
    pub paths: &'static [&'static str],
    /// Results lie between these.
    pub before: &'static str,
    pub after: &'static str,
    pub dialect: Dialect,
}

impl Batch {
    /// OpenAI's, as others have it, too.
    pub const FILES: Self = Self { paths: &["/batches*", "/files*"], before: "/files/", after: "/content", dialect: Dialect::Batch };

    /// The job or file whose results lie at a path, if any do. Some servers do not care for case, nor for a slash at the end.
    pub fn results<'p>(&self, path: &'p str) -> Option<&'p str> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let (before, id) = path.split_at_checked(self.before.len())?;
        let (id, after) = id.split_at_checked(id.len().checked_sub(self.after.len())?)?;
        let fits = before.eq_ignore_ascii_case(self.before) && after.eq_ignore_ascii_case(self.after);
        (fits && !id.is_empty() && !id.contains('/')).then_some(id)
    }

    /// True if asking there generates nothing.
    pub fn manages(&self, path: &str) -> bool {
        self.paths.iter().any(|pattern| fits(path, pattern))
    }
}

/// What a provider is, apart from keys and overrides, which configuration holds.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    pub id: &'static str,
    /// With places in braces, if there are any.
    pub host: &'static str,
    pub places: &'static [Place],
    /// Path in front of the endpoints, without a slash at its end.
    pub base_path: &'static str,
    /// Where an endpoint does not lie below `base_path`.
    pub paths: &'static [(Endpoint, &'static str)],
    pub endpoints: &'static [Endpoint],
    /// What stands between version and model in paths of generateContent.
    pub resource: &'static str,
    /// Versions in paths of generateContent, the usual one first.
    pub versions: &'static [&'static str],
    pub auth: Auth,
    /// Where the gateway may be someone instead of holding a key.
    pub cloud: Option<Cloud>,
    /// A dialect that wants the key in another way.
    pub native_auth: Option<(Dialect, Auth)>,
    /// Headers every request carries unless the caller sent them.
    pub headers: &'static [(&'static str, &'static str)],
    /// Variables that may hold the key, the first set wins.
    pub key_variables: &'static [&'static str],
    /// Variables that may hold a bearer token in place of a key that goes up otherwise.
    pub token_variables: &'static [&'static str],
    /// Variables that may hold the address, as far as the base path.
    pub url_variables: &'static [&'static str],
    /// How the provider's model names look: `name`, `prefix*` or `*part*`.
    pub models: &'static [&'static str],
    /// Shapes of credentials by which a caller's own key gives the provider away: header and prefix of the value.
    pub credentials: &'static [(&'static str, &'static str)],
    pub stream_usage: StreamUsage,
    pub on_disconnect: OnDisconnect,
    pub reasoning: Reasoning,
    /// See [`Convention::output_by_total`]; holds for chat completions only.
    pub output_by_total: bool,
    /// See [`Convention::audio_by_total`].
    pub audio_by_total: bool,
    /// Models whose cached tokens stand beside the prompt where the dialect has them inside.
    pub cache_beside: &'static [&'static str],
    /// Models that hand a request on to another one for a fee of their own, which no response states:
    /// <https://learn.microsoft.com/en-us/azure/ai-foundry/openai/concepts/model-router>.
    pub routers: &'static [&'static str],
    /// Models that search the web for a fee by the search, and do not state how often:
    /// <https://platform.openai.com/docs/models/gpt-5-search-api>.
    pub unstated_searches: &'static [&'static str],
    /// Models with [`Reasoning::ByExcess`], where the provider has [`Reasoning::Inside`].
    pub reasoning_by_excess: &'static [&'static str],
    pub cache_by: Option<CacheBy>,
    pub batch: Option<Batch>,
    /// Takes Responses over a WebSocket.
    pub socket: bool,
    /// The rates' provider in the catalog, where it has another name.
    pub catalog: &'static str,
}

/// OpenAI's endpoints as most others offer them.
pub const CHAT_COMPATIBLE: Provider = Provider {
    id: "",
    host: "",
    places: &[],
    base_path: "/v1",
    paths: &[],
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Embeddings],
    resource: "",
    versions: &["v1beta", "v1", "v1alpha"],
    auth: Auth::Bearer,
    cloud: None,
    native_auth: None,
    headers: &[],
    key_variables: &[],
    token_variables: &[],
    url_variables: &[],
    models: &[],
    credentials: &[],
    stream_usage: StreamUsage::Unknown,
    on_disconnect: OnDisconnect::Cancel,
    reasoning: Reasoning::Inside,
    output_by_total: false,
    audio_by_total: false,
    cache_beside: &[],
    routers: &[],
    unstated_searches: &["gpt-5-search-api*"],
    reasoning_by_excess: &["*gemini-*"],
    cache_by: None,
    batch: None,
    socket: false,
    catalog: "",
};

impl Provider {
    /// How this provider counts in responses of a dialect.
    pub fn convention(&self, dialect: Dialect) -> Convention {
        Convention {
            cache: dialect.grammar().cache,
            reasoning: dialect.grammar().reasoning.unwrap_or(self.reasoning),
            output_by_total: self.output_by_total && dialect == Dialect::Chat,
            audio_by_total: self.audio_by_total,
        }
    }
}

/// True if `name` fits one of the patterns `name`, `prefix*`, `*suffix` or `*part*`, letter case aside.
pub fn fits(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.as_bytes(), pattern.as_bytes());
    let starts = |name: &[u8], part: &[u8]| name.get(..part.len()).is_some_and(|start| start.eq_ignore_ascii_case(part));
    match (pattern.strip_prefix(b"*"), pattern.strip_suffix(b"*")) {
        (Some(b""), _) => true,
        (Some(rest), Some(_)) => {
            let part = rest.strip_suffix(b"*").unwrap_or(rest);
            (0..=name.len()).any(|at| name.get(at..).is_some_and(|tail| starts(tail, part)))
        }
        (Some(suffix), None) => {
            name.len().checked_sub(suffix.len()).and_then(|at| name.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        }
        (None, Some(prefix)) => starts(name, prefix),
        (None, None) => name.eq_ignore_ascii_case(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_fit_for_paths_and_labels() {
        for (at, provider) in REGISTRY.iter().enumerate() {
            assert!(provider.id.bytes().all(|byte| byte.is_ascii_lowercase()), "{}", provider.id);
            assert!(REGISTRY.iter().skip(at + 1).all(|other| other.id != provider.id), "{}", provider.id);
            assert!(!provider.endpoints.is_empty() && provider.base_path.strip_suffix('/').is_none());
        }
    }

    #[test]
    fn matches_patterns() {
        for (name, pattern, want) in [
            ("gpt-4o", "gpt-*", true),
            ("GPT-4o", "gpt-*", true),
            ("my-gpt-4o", "gpt-*", false),
            ("llama-sonar-x", "*sonar*", true),
            ("x:free", "*:free", true),
            ("o1", "o1", true),
            ("o10", "o1", false),
            ("anything", "*", true),
        ] {
            assert_eq!(fits(name, pattern), want, "{name} {pattern}");
        }
    }
}
