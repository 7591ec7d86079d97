//! Formats: the endpoint that a body is meant for, and the upstream that a path belongs to.

use super::{Named, RequestFields};
use crate::config::{Config, Upstream};
use crate::dialect::Endpoint;
use crate::error::Error;

/// The upstream whose own kind of path it is: the one named by it, else the first that has the endpoint and serves
/// the model, else the first that has it. Paths that many providers share decide nothing.
pub fn native(endpoint: Endpoint, named: Option<&Named>, config: &Config) -> Option<usize> {
    let own_name = matches!(endpoint, Endpoint::CohereChat | Endpoint::CohereEmbed | Endpoint::RawCountTokens);
    let native = endpoint.has_model_in_path() || own_name;
    if !native {
        return None;
    }
    let own = named.and_then(|named| named.provider);
    let has = |upstream: &&Upstream| own.is_none_or(|own| upstream.provider.id == own) && upstream.endpoints.contains(&endpoint);
    let model = named.map_or("", |named| named.model.as_str());
    let serving = config.upstreams.iter().position(|upstream| has(&upstream) && upstream.serves(model));
    serving.or_else(|| config.upstreams.iter().position(|upstream| has(&upstream)))
}

/// Who serves what was asked without a model, where that is a request like any other: moderation, and its usual model
/// (<https://platform.openai.com/docs/api-reference/moderations/create>). Pictures could not be priced.
pub fn without_model(endpoint: Endpoint, config: &Config) -> Option<usize> {
    let serves = |upstream: &Upstream| upstream.endpoints.contains(&endpoint) && upstream.serves("omni-moderation-latest");
    (endpoint == Endpoint::Moderations).then(|| config.upstreams.iter().position(serves)).flatten()
}

/// The endpoint of a body sent to no path in particular.
pub fn guess(fields: &RequestFields, upstream: &Upstream) -> Result<Endpoint, Error> {
    let streams = fields.stream.as_ref().is_some_and(|stream| stream.value);
    let own = upstream.endpoints.first();
    if fields.contents {
        return Ok(if streams { Endpoint::StreamGenerateContent } else { Endpoint::GenerateContent });
    }
    if fields.messages && own == Some(&Endpoint::Converse) {
        return Ok(if streams { Endpoint::ConverseStream } else { Endpoint::Converse });
    }
    if fields.messages && own == Some(&Endpoint::CohereChat) {
        return Ok(Endpoint::CohereChat);
    }
    let messages_first = upstream.endpoints.first() == Some(&Endpoint::Messages) || fields.system;
    if fields.messages && messages_first && upstream.endpoints.contains(&Endpoint::Messages) {
        Ok(Endpoint::Messages)
    } else if fields.messages {
        Ok(Endpoint::ChatCompletions)
    } else if fields.input {
        Ok(Endpoint::Responses)
    } else if fields.prompt {
        Ok(Endpoint::Completions)
    } else {
        Err(Error::UnknownFormat)
    }
}
