//! What ends an exchange before or instead of an answer, and how the caller is told.

use crate::dialect::Dialect;
use crate::exchange::who::{TAG_BYTES_MAX, TAGS, TAGS_MAX};
use crate::limit::{Exceeded, Kind};
use std::fmt;

/// Why a request gets no answer from a provider. Holds nothing secret: all of it may be shown to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The body is not a JSON object, or is nested too deeply.
    BadJson {
        why: &'static str,
    },
    /// The form cannot be read, or could be read in two ways.
    BadForm {
        why: &'static str,
    },
    /// More tags than there may be, or longer ones.
    BadTags,
    /// A field that decides over routing or billing stands there twice.
    DuplicateField {
        name: &'static str,
    },
    /// A field's name is spelled so that some servers take it for this one.
    LookAlikeField {
        name: &'static str,
    },
    /// A field that decides over routing or billing has a value that the gateway cannot use.
    BadField {
        name: &'static str,
        want: &'static str,
    },
    /// A parameter of the query has a value that the gateway cannot bill.
    BadParameter {
        name: &'static str,
        want: &'static str,
    },
    /// The `Connection` header names a header that does not concern the connection alone.
    BadConnection,
    /// The body's length is stated in two ways.
    BadFraming,
    BodyTooLarge {
        bytes_max: u64,
    },
    /// The body did not arrive in time.
    BodyTimeout,
    /// The client left or broke off while sending the body.
    BodyBroken,
    /// All bodies in flight together would exceed the budget.
    BodyBudget,
    MissingModel,
    /// No rule says which provider serves this model.
    UnknownModel {
        model: String,
    },
    /// The provider is known but has no key or address here.
    ProviderOff {
        provider: String,
        variable: &'static str,
    },
    UnknownProvider {
        provider: String,
    },
    /// The provider has no such endpoint.
    NoEndpoint {
        provider: String,
        path: &'static str,
        instead: String,
    },
    /// The provider takes no WebSocket.
    NoSocket {
        provider: String,
    },
    /// The body's format cannot be told, or is not spoken.
    UnknownFormat,
    NotFound {
        path: String,
    },
    /// The answer is made in the background and its bill is open: it stays until that is known.
    UnbilledAnswer {
        id: String,
    },
    /// Nobody here knows the answer or conversation, or it is another caller's.
    UnknownAnswer {
        id: String,
    },
    /// The request names stored responses and objects of different upstreams.
    ObjectsApart,
    /// The object (a file, a batch, a vector store) is not known here, or belongs to another key.
    UnknownObject {
        id: String,
    },
    MethodNotAllowed,
    /// The path is not allowed by the provider's list.
    NotAllowed {
        path: String,
    },
    /// A path segment that could leave its place (`..`, encoded slashes).
    BadPath,
    ForbiddenHost,
    CrossSite,
    /// Keys are configured and the request carries none.
    MissingKey,
    /// Unknown, wrong, expired or revoked, or several that differ.
    InvalidKey,
    /// A signature that cannot be checked or does not hold.
    BadSignature {
        why: &'static str,
    },
    /// The key may not use this model.
    ForbiddenModel {
        model: String,
    },
    /// A money limit holds and the catalog has no price for the model.
    UnpricedModel {
        model: String,
    },
    /// A key that is limited to models may not use a field that selects a model which the request does not name.
    ForbiddenField {
        name: &'static str,
    },
    /// The client sent bytes that are not WebSocket frames, or frames in an invalid order.
    BadFrame,
    /// The key has as many WebSockets open as it may.
    TooManyWebSockets {
        max: usize,
    },
    /// More turns are requested on a WebSocket than may wait.
    TooManyTurns,
    /// The key may not use this provider.
    ForbiddenProvider {
        provider: String,
    },
    /// A limit is reached.
    Limited(Exceeded),
    /// Nobody can say whether one is.
    LimitsUnknown,
    /// Who may know whose an answer is cannot be asked.
    AnswersUnknown,
    /// The cloud hands out no credential for the provider.
    NoCredential {
        provider: String,
    },
    /// The upstream refused, reset or could not be reached.
    UpstreamUnreachable {
        provider: String,
    },
    UpstreamBroken {
        provider: String,
    },
    UpstreamTimeout {
        provider: String,
    },
    /// The ledger cannot be written, and policy says that nothing is served unbilled.
    Unbillable,
    Internal,
}

impl Error {
    pub fn status(&self) -> u16 {
        match self {
            Self::BadJson { .. }
            | Self::BadForm { .. }
            | Self::BadTags
            | Self::DuplicateField { .. }
            | Self::LookAlikeField { .. }
            | Self::BadField { .. }
            | Self::BadParameter { .. }
            | Self::BadConnection
            | Self::BadFraming
            | Self::BodyBroken
            | Self::MissingModel
            | Self::ProviderOff { .. }
            | Self::UnknownProvider { .. }
            | Self::NoEndpoint { .. }
            | Self::NoSocket { .. }
            | Self::UnknownFormat
            | Self::BadFrame
            | Self::ObjectsApart
            | Self::UnpricedModel { .. }
            | Self::BadPath => 400,
            Self::MissingKey | Self::InvalidKey => 401,
            Self::ForbiddenHost
            | Self::CrossSite
            | Self::NotAllowed { .. }
            | Self::BadSignature { .. }
            | Self::ForbiddenModel { .. }
            | Self::ForbiddenField { .. }
            | Self::ForbiddenProvider { .. } => 403,
            Self::UnknownModel { .. } | Self::NotFound { .. } | Self::UnknownAnswer { .. } | Self::UnknownObject { .. } => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyTimeout => 408,
            Self::UnbilledAnswer { .. } => 409,
            Self::Limited(_) | Self::TooManyTurns | Self::TooManyWebSockets { .. } => 429,
            Self::BodyTooLarge { .. } => 413,
            Self::Internal => 500,
            Self::UpstreamUnreachable { .. } | Self::UpstreamBroken { .. } => 502,
            Self::BodyBudget | Self::Unbillable | Self::LimitsUnknown | Self::AnswersUnknown | Self::NoCredential { .. } => 503,
            Self::UpstreamTimeout { .. } => 504,
        }
    }

    /// A word for programs: stable, in errors, logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadJson { .. } => "invalid_json",
            Self::BadForm { .. } => "invalid_form",
            Self::BadTags => "invalid_tags",
            Self::DuplicateField { .. } => "duplicate_field",
            Self::LookAlikeField { .. } => "ambiguous_field",
            Self::BadField { .. } => "invalid_field",
            Self::BadParameter { .. } => "invalid_parameter",
            Self::BadConnection => "invalid_connection_header",
            Self::BadFraming => "invalid_framing",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyBroken => "body_broken",
            Self::BodyBudget => "overloaded",
            Self::MissingModel => "missing_model",
            Self::UnknownModel { .. } => "model_not_found",
            Self::ProviderOff { .. } => "provider_not_configured",
            Self::UnknownProvider { .. } => "unknown_provider",
            Self::NoEndpoint { .. } => "endpoint_not_supported",
            Self::NoSocket { .. } => "websocket_not_supported",
            Self::UnknownFormat => "unknown_format",
            Self::NotFound { .. } => "not_found",
            Self::UnknownAnswer { .. } => "response_not_found",
            Self::UnknownObject { .. } => "object_not_found",
            Self::ObjectsApart => "objects_of_different_accounts",
            Self::UnbilledAnswer { .. } => "response_not_billed",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotAllowed { .. } => "path_not_allowed",
            Self::BadPath => "invalid_path",
            Self::ForbiddenHost => "forbidden_host",
            Self::CrossSite => "cross_site_request",
            Self::MissingKey => "missing_api_key",
            Self::InvalidKey => "invalid_api_key",
            Self::BadSignature { .. } => "invalid_signature",
            Self::ForbiddenModel { .. } => "model_not_allowed",
            Self::UnpricedModel { .. } => "model_not_priced",
            Self::ForbiddenField { .. } => "field_not_allowed",
            Self::BadFrame => "invalid_frame",
            Self::TooManyTurns => "too_many_turns",
            Self::TooManyWebSockets { .. } => "too_many_websockets",
            Self::ForbiddenProvider { .. } => "provider_not_allowed",
            // OpenAI's word for a budget that is used up; its clients do not try again then.
            Self::Limited(Exceeded { kind: Kind::Day | Kind::Month, .. }) => "insufficient_quota",
            Self::Limited(_) => "rate_limit_exceeded",
            Self::LimitsUnknown => "limits_unavailable",
            Self::AnswersUnknown => "answers_unavailable",
            Self::NoCredential { .. } => "no_credential",
            Self::UpstreamUnreachable { .. } => "upstream_unreachable",
            Self::UpstreamBroken { .. } => "upstream_broken",
            Self::UpstreamTimeout { .. } => "upstream_timeout",
            Self::Unbillable => "ledger_unavailable",
            Self::Internal => "internal_error",
        }
    }

    /// Seconds after which trying again makes sense.
    pub fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::BodyBudget | Self::Unbillable | Self::LimitsUnknown | Self::AnswersUnknown | Self::NoCredential { .. } => Some(1),
            Self::Limited(exceeded) => Some(u32::try_from(exceeded.retry_ms.div_ceil(1000)).unwrap_or(u32::MAX)),
            _ => None,
        }
    }

    /// The body that tells the caller, in its dialect.
    pub fn body(&self, dialect: Dialect, request_id: &str) -> String {
        dialect.error_body(self.status(), self.code(), &self.to_string(), request_id)
    }
}

fn tell_exceeded(exceeded: &Exceeded, to: &mut fmt::Formatter<'_>) -> fmt::Result {
    let limit = exceeded.limit;
    match exceeded.kind {
        Kind::Requests => write!(to, "the limit of {limit} requests per minute is reached"),
        Kind::Tokens => write!(to, "the limit of {limit} tokens per minute is reached, counting what this request may use"),
        Kind::Concurrent => write!(to, "the limit of {limit} requests at once is reached"),
        Kind::Day => write!(to, "what may be spent in a day is used up, or would be by this request"),
        Kind::Reserved => write!(to, "what may be spent is reserved by requests under way; try again shortly"),
        Kind::Month => write!(to, "what may be spent in a month is used up, or would be by this request"),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownModel { model } => write!(
                to,
                "no configured provider is known to serve `{model}`; write `provider/{model}`, send an `x-provider` header, or list the model in the gateway's configuration (GET /v1/models shows what is there)"
            ),
            Self::ProviderOff { provider, variable: "" } => write!(to, "provider `{provider}` is not configured at this gateway"),
            Self::ProviderOff { provider, variable } => {
                write!(to, "provider `{provider}` is not configured at this gateway: set {variable} or add it to the configuration")
            }
            Self::UnknownProvider { provider } => write!(to, "no provider is called `{provider}` here"),
            Self::NoEndpoint { provider, path, instead } => write!(to, "provider `{provider}` has no `{path}`; what it has: {instead}"),
            Self::NoSocket { provider } if provider.is_empty() => to.write_str("no provider that takes WebSockets is configured here"),
            Self::NoSocket { provider } => write!(to, "provider `{provider}` takes no WebSocket; post to `/responses` instead"),
            Self::NotFound { path } => write!(to, "there is nothing at `{path}`"),
            Self::UnbilledAnswer { id } => {
                write!(
                    to,
                    "the response `{}` is made in the background and not billed yet; cancel it, or delete it when it is done",
                    shown(id)
                )
            }
            Self::UnknownAnswer { id } => {
                write!(to, "there is no response or conversation `{}` of yours", shown(id))
            }
            Self::ObjectsApart => to.write_str("the request names responses and objects that different provider accounts keep"),
            Self::UnknownObject { id } => {
                write!(to, "there is no object `{}` of yours: objects belong to the gateway key that created them", shown(id))
            }
            Self::MethodNotAllowed => to.write_str("this method is not allowed here"),
            Self::NotAllowed { path } => write!(to, "`{path}` is not on the provider's list of allowed paths"),
            Self::ForbiddenHost => {
                to.write_str("the Host header names a host this gateway does not answer for; add it to `hosts` in the configuration")
            }
            Self::CrossSite => to.write_str("requests from other web sites are refused"),
            Self::MissingKey => to.write_str("a gateway key is needed: send it where the SDK puts its API key"),
            Self::InvalidKey => to.write_str("the gateway key is not valid, or several keys were sent that differ"),
            Self::BadSignature { why } => write!(to, "the request's signature does not hold: {why}"),
            Self::ForbiddenModel { model } => write!(to, "this gateway key may not use the model `{model}`"),
            Self::UnpricedModel { model } => {
                write!(
                    to,
                    "a budget holds for this request and the price catalog has no price for the model `{}`; name a model with a price",
                    shown(model)
                )
            }
            Self::ForbiddenField { name } => {
                write!(to, "this gateway key is limited to models and may not use `{name}`, by which the provider selects a model itself")
            }
            Self::ForbiddenProvider { provider } => write!(to, "this gateway key may not use the provider `{provider}`"),
            Self::Limited(exceeded) => tell_exceeded(exceeded, to),
            Self::LimitsUnknown => {
                to.write_str("the gateway cannot find out at the moment how much is left of your limits; try again shortly")
            }
            Self::AnswersUnknown => to.write_str("the gateway cannot find out at the moment whose this answer is; try again shortly"),
            Self::NoCredential { provider } => {
                write!(to, "the gateway has no valid credential for provider `{provider}` at the moment; its log says why")
            }
            Self::UpstreamUnreachable { provider } => write!(to, "provider `{provider}` could not be reached"),
            Self::UpstreamBroken { provider } => write!(to, "provider `{provider}` broke off before it answered"),
            Self::UpstreamTimeout { provider } => write!(to, "provider `{provider}` did not answer in time"),
            Self::Unbillable => to.write_str("the gateway cannot write its ledger and serves nothing that it could not bill"),
            Self::Internal => to.write_str("the gateway failed to handle the request"),
            _ => self.fmt_unreadable(to),
        }
    }
}

impl Error {
    /// Writes the message of a request that the gateway cannot read or take.
    fn fmt_unreadable(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadJson { why } => write!(to, "the request body is not usable JSON: {why}"),
            Self::BadTags => write!(to, "`{TAGS}` holds at most {TAGS_MAX} tags of {TAG_BYTES_MAX} bytes, separated by commas"),
            Self::BadForm { why } => write!(to, "the request body is not a usable form: {why}"),
            Self::DuplicateField { name } => write!(to, "`{name}` appears more than once in the request; send it once"),
            Self::LookAlikeField { name } => {
                write!(to, "the request has a field whose name differs from `{name}` only in its spelling; write `{name}`")
            }
            Self::BadField { name, want } => write!(to, "`{name}` must be {want}"),
            Self::BadParameter { name, want } => write!(to, "the query parameter `{name}` must be {want}"),
            Self::BadConnection => to.write_str("the `Connection` header may name only headers that concern the connection"),
            Self::BadFraming => to.write_str("the request states the length of its body in more than one way"),
            Self::BodyTooLarge { bytes_max } => write!(to, "the request body exceeds the gateway's limit of {bytes_max} bytes"),
            Self::BodyTimeout => to.write_str("the request body did not arrive in time"),
            Self::BodyBroken => to.write_str("the request body ended early"),
            Self::BodyBudget => to.write_str("the gateway holds as many request bodies as its memory budget allows; try again shortly"),
            Self::MissingModel => {
                to.write_str("`model` is missing; name a model such as `openai/gpt-5` or choose the provider with the `x-provider` header")
            }
            Self::UnknownFormat => to.write_str(
                "the format of the request cannot be told: expected `messages`, `input` or `prompt` in the body, or a known path",
            ),
            Self::BadPath => to.write_str("the path has a segment that is not allowed"),
            Self::BadFrame => to.write_str("the client sent bytes that are not valid WebSocket frames"),
            Self::TooManyWebSockets { max } => write!(to, "{max} WebSockets of this key are open, which is the limit; close one"),
            Self::TooManyTurns => to.write_str("too many responses are requested at once on this connection"),
            _ => Ok(()),
        }
    }
}

/// As much of an id as an error may repeat.
fn shown(id: &str) -> &str {
    const SHOWN_BYTES_MAX: usize = 128;
    id.get(..id.floor_char_boundary(SHOWN_BYTES_MAX)).unwrap_or_default()
}

impl std::error::Error for Error {}
