//! Who may answer, by the rules in their order.

use super::{Head, PROVIDER_HEADER};
use crate::config::{Alias, Config, Credentials, Upstream};
use crate::error::Error;
use crate::provider;
use http::HeaderMap;

/// Who may answer.
pub(super) enum Choice<'a> {
    /// An upstream, and the model as it is called there.
    One(usize, &'a str),
    Alias(&'a Alias),
}

pub(super) fn choose<'a>(
    head: &Head<'_>,
    mount: Option<usize>,
    native: Option<usize>,
    requested: &'a str,
    config: &'a Config,
) -> Result<Choice<'a>, Error> {
    let named = head.headers.get(&PROVIDER_HEADER).map(|value| value.to_str().unwrap_or_default().trim());
    let fixed = match named {
        Some(name) => Some(configured(&name.to_ascii_lowercase(), config)?),
        None => mount,
    };
    if let Some(at) = fixed {
        return Ok(Choice::One(at, without_own_prefix(requested, at, config)));
    }
    if let Some(alias) = config.aliases.get(requested) {
        return Ok(Choice::Alias(alias));
    }
    if let Some((prefix, _)) = requested.split_once('/')
        && (config.upstream(prefix).is_some() || provider::find(prefix).is_some())
    {
        let at = configured(prefix, config)?;
        return Ok(Choice::One(at, without_own_prefix(requested, at, config)));
    }
    if let Some(at) = native {
        return Ok(Choice::One(at, requested));
    }
    let by_model = by_pattern(requested, config)?.or_else(|| by_credential(head.headers, config));
    match by_model.or_else(|| by_catalog(requested, config)).or(config.fallback) {
        Some(at) => Ok(Choice::One(at, requested)),
        None if requested.is_empty() => Err(Error::MissingModel),
        None => Err(Error::UnknownModel { model: shown(requested) }),
    }
}

/// A model name as an error may repeat it.
fn shown(model: &str) -> String {
    const SHOWN_BYTES_MAX: usize = 128;
    let end = model.floor_char_boundary(SHOWN_BYTES_MAX);
    model.get(..end).unwrap_or_default().to_owned()
}

pub(super) fn configured(name: &str, config: &Config) -> Result<usize, Error> {
    match (config.upstream(name), provider::find(name)) {
        (Some(at), _) => Ok(at),
        (None, Some(provider)) => Err(off(provider)),
        (None, None) => Err(Error::UnknownProvider { provider: shown(name) }),
    }
}

pub(super) fn off(provider: &provider::Provider) -> Error {
    Error::ProviderOff { provider: provider.id.to_owned(), variable: provider.key_variables.first().copied().unwrap_or_default() }
}

/// `openai/gpt-5` sent to `openai` means `gpt-5` there; any other prefix is part of the name, and so is its own where
/// models of the provider bear it (`openrouter/auto`).
pub(super) fn without_own_prefix<'a>(model: &'a str, at: usize, config: &Config) -> &'a str {
    let upstream = config.upstreams.get(at);
    let own = |prefix: &str| upstream.is_some_and(|upstream| upstream.name == prefix || upstream.provider.id == prefix);
    match model.split_once('/') {
        Some((prefix, rest))
            if own(prefix)
                && !rest.is_empty()
                && (rest.contains('/') || !upstream.is_some_and(|upstream| upstream.names_models_after(prefix))) =>
        {
            rest
        }
        _ => model,
    }
}

/// By the looks of the name: what the operator listed first, then what providers are known for.
fn by_pattern(model: &str, config: &Config) -> Result<Option<usize>, Error> {
    if model.is_empty() {
        return Ok(None);
    }
    let listed = |upstream: &Upstream| upstream.models.iter().any(|pattern| provider::fits(model, pattern));
    let known = |upstream: &Upstream| upstream.serves(model);
    if let Some(at) = config.upstreams.iter().position(listed).or_else(|| config.upstreams.iter().position(known)) {
        return Ok(Some(at));
    }
    // Known to belong to a provider that is off: better to say so than to guess, unless something else may take it.
    let owner = provider::REGISTRY.iter().find(|provider| provider.models.iter().any(|pattern| provider::fits(model, pattern)));
    match owner {
        Some(owner) if config.fallback.is_none() && by_catalog(model, config).is_none() => Err(off(owner)),
        _ => Ok(None),
    }
}

/// By the shape of the caller's credential, where callers bring their own.
fn by_credential(headers: &HeaderMap, config: &Config) -> Option<usize> {
    config.upstreams.iter().position(|upstream| {
        let fits = |(name, prefix): &(&str, &str)| headers.get(*name).is_some_and(|value| value.as_bytes().starts_with(prefix.as_bytes()));
        upstream.credentials == Credentials::Caller && upstream.provider.credentials.iter().any(fits)
    })
}

fn by_catalog(model: &str, config: &Config) -> Option<usize> {
    if model.is_empty() {
        return None;
    }
    config.upstreams.iter().position(|upstream| config.prices.model(&upstream.catalog, model).is_some())
}
